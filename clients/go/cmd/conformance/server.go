package main

import (
	"bufio"
	"encoding/json"
	"io"
	"os/exec"
	"syscall"
	"time"
)

// Longer than anything here takes: past it, what was waited for does not come.
const soon = 10 * time.Second

// A `pail serve` of this program's own: on a free port at first, and on the same one again.
type server struct {
	address string
	command *exec.Cmd
	ended   chan error
}

func startServer() *server {
	server := &server{address: "127.0.0.1:0"}
	server.start()
	return server
}

func (s *server) start() {
	s.command = exec.Command(of("PAIL_BIN"), "serve", "--listen", s.address, "--log-format", "json")
	log := must(s.command.StderrPipe())
	if err := s.command.Start(); err != nil {
		fail("the server did not start: %v", err)
	}
	listening, ended := make(chan string, 1), make(chan error, 1)
	s.ended = ended
	go func() {
		reader := bufio.NewReader(log)
		for line, err := reader.ReadBytes('\n'); err == nil; line, err = reader.ReadBytes('\n') {
			var entry struct {
				Fields struct{ Message, Address string }
			}
			if json.Unmarshal(line, &entry) == nil && entry.Fields.Message == "listening" {
				listening <- entry.Fields.Address
			}
		}
		_, _ = io.Copy(io.Discard, reader)
		ended <- s.command.Wait()
	}()
	select {
	case s.address = <-listening:
	case err := <-ended:
		fail("the server did not start: %v", err)
	case <-time.After(soon):
		s.kill()
		fail("the server does not say its address")
	}
}

func (s *server) stop() {
	must(0, s.command.Process.Signal(syscall.SIGTERM))
	select {
	case err := <-s.ended:
		same("how the server ended", err, nil)
	case <-time.After(soon):
		fail("the server does not end")
	}
}

// On every way out; of a server that has ended it is nothing.
func (s *server) kill() {
	if s.command.Process.Kill() == nil {
		<-s.ended
	}
}
