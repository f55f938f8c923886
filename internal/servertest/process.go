// Package servertest is what tests of servers need, whatever protocol these speak: it kills and freezes processes, it cuts, holds
// and delays connections, and it makes certificates.
package servertest

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/internal/subprocess"
)

// Patience is how long tests wait for something that a server normally does at once.
const Patience = 30 * time.Second

// Process is a server's process, which ends with the test. It can be started again after it has ended.
type Process struct {
	t       testing.TB
	command []string
	log     string
	cmd     *exec.Cmd
	done    chan struct{} // closed when it has ended
}

// NewProcess returns a process that Run starts. Its output is appended to the file log, whose end is shown if the test
// fails.
func NewProcess(t testing.TB, log string, command ...string) *Process {
	return &Process{t: t, command: command, log: log}
}

// Run starts the process, for the first time or after it has ended.
func (p *Process) Run() {
	p.t.Helper()
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		p.t.Fatal(err)
	}
	// The process has the file open by itself.
	defer log.Close()
	cmd := exec.Command(p.command[0], p.command[1:]...)
	cmd.Stdout, cmd.Stderr = log, log
	subprocess.DieWithParent(cmd)
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	done := make(chan struct{})
	p.cmd, p.done = cmd, done
	go func() {
		cmd.Wait()
		close(done)
	}()
	p.t.Cleanup(func() {
		cmd.Process.Kill()
		<-done
		if p.t.Failed() {
			p.t.Logf("log of %s:\n%s", strings.Join(p.command, " "), p.Tail())
		}
	})
}

// Tail returns the end of the output, where a server says why it has ended.
func (p *Process) Tail() string {
	data, _ := os.ReadFile(p.log)
	return string(data[max(0, len(data)-2000):])
}

// WaitListening waits until an address accepts connections. It fails at once if the process has ended, for example because
// another one has its port.
func (p *Process) WaitListening(addr string) {
	p.t.Helper()
	for deadline := time.Now().Add(Patience); ; time.Sleep(5 * time.Millisecond) {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			conn.Close()
			return
		}
		select {
		case <-p.done:
			p.t.Fatalf("%s ended:\n%s", p.command[0], p.Tail())
		default:
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("%s does not listen:\n%s", p.command[0], p.Tail())
		}
	}
}

// Kill ends the process at once, as kill -9 does, and returns when it has ended. What it had written survives even if it
// was not synced, because the kernel has it.
func (p *Process) Kill() {
	p.cmd.Process.Kill()
	<-p.done
}

// WaitEnd waits until the process has ended, on its own or by a signal.
func (p *Process) WaitEnd() { <-p.done }

// PID returns the number of the process.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Signal sends the process a signal.
func (p *Process) Signal(s os.Signal) { p.cmd.Process.Signal(s) }

// Freeze stops the process until Thaw, and returns when it has stopped. Its connections stay open, and the kernel still
// accepts connections and acknowledges bytes until buffers are full. So clients notice only by their own timeouts.
func (p *Process) Freeze() { Freeze(p.cmd.Process) }

// Freeze stops any process, as Process.Freeze does.
func Freeze(p *os.Process) {
	p.Signal(syscall.SIGSTOP)
	// Its threads stop one after the other, a moment later. Linux tells when all have; elsewhere nothing does.
	for range 1000 {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.Pid))
		if err != nil || strings.Contains(string(stat), ") T ") {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// Thaw lets a frozen process continue.
func (p *Process) Thaw() { p.cmd.Process.Signal(syscall.SIGCONT) }
