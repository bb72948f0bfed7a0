package main

import (
	"io"
	"net"
	"sync"
)

// A line to a server that can be cut, and mended: a connection breaks for both ends at once, and none is made anew.
type line struct {
	address  string
	target   string
	listener net.Listener

	mutex sync.Mutex
	isCut bool
	ends  []net.Conn
}

func newLine(target string) *line {
	listener := must(net.Listen("tcp", "127.0.0.1:0"))
	line := &line{address: listener.Addr().String(), target: target, listener: listener}
	go func() {
		for near, err := listener.Accept(); err == nil; near, err = listener.Accept() {
			line.carry(near)
		}
	}()
	return line
}

func (l *line) carry(near net.Conn) {
	far, err := net.Dial("tcp", l.target)
	if err != nil {
		_ = near.Close()
		return
	}
	l.mutex.Lock()
	defer l.mutex.Unlock()
	if l.isCut {
		_, _ = near.Close(), far.Close()
		return
	}
	l.ends = append(l.ends, near, far)
	pump := func(to, from net.Conn) {
		_, _ = io.Copy(to, from)
		_, _ = to.Close(), from.Close()
	}
	go pump(far, near)
	go pump(near, far)
}

func (l *line) cut() {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	l.isCut = true
	for _, end := range l.ends {
		_ = end.Close()
	}
	l.ends = nil
}

func (l *line) mend() {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	l.isCut = false
}

func (l *line) close() {
	_ = l.listener.Close()
	l.cut()
}
