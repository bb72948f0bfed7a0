// Package server starts pail for a test, on a port of its choice.
package server

import (
	"bufio"
	"encoding/json"
	"errors"
	"os/exec"
	"strings"
	"sync"
	"syscall"
)

// Server is a running `pail serve`. It ends with this process, whatever happens.
type Server struct {
	Address string
	command *exec.Cmd
	reader  sync.WaitGroup
	panics  []string
}

// Start starts a server with these options, and waits until it listens.
func Start(pail string, options ...string) (*Server, error) {
	arguments := append([]string{"serve", "--listen", "127.0.0.1:0", "--log-format", "json"}, options...)
	s := &Server{command: exec.Command(pail, arguments...)}
	s.command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	logs, err := s.command.StderrPipe()
	if err == nil {
		err = s.command.Start()
	}
	if err != nil {
		return nil, err
	}
	lines := bufio.NewScanner(logs)
	for lines.Scan() {
		var line struct {
			Fields struct{ Message, Address string }
		}
		if json.Unmarshal(lines.Bytes(), &line) == nil && line.Fields.Message == "listening" {
			s.Address = line.Fields.Address
			// Somebody has to read the log, or the server would wait for it.
			s.reader.Go(func() {
				for lines.Scan() {
					if strings.Contains(lines.Text(), "panic") {
						s.panics = append(s.panics, lines.Text())
					}
				}
			})
			return s, nil
		}
	}
	return nil, errors.New("the server did not start")
}

// Pid is the server's process id.
func (s *Server) Pid() int { return s.command.Process.Pid }

// Stop tells the server to drain.
func (s *Server) Stop() error { return s.command.Process.Signal(syscall.SIGTERM) }

// Wait waits for its end, which has to be a good one.
func (s *Server) Wait() error {
	s.reader.Wait()
	if err := s.command.Wait(); err != nil {
		return err
	}
	if len(s.panics) > 0 {
		return errors.New("the log holds " + s.panics[0])
	}
	return nil
}
