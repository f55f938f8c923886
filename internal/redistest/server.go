// Package redistest runs real servers of Redis and Valkey for tests, with replicas and Sentinels, and breaks them.
package redistest

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
	"github.com/caddy-broadcast/caddy-broadcast/internal/servertest"
)

// Programs for StartProgram.
const (
	Redis  = "redis-server"
	Valkey = "valkey-server"
)

// AOF is the configuration of a server that has each write on its disk before it answers.
const AOF = "appendonly yes\nappendfsync always"

// Programs returns the programs that this machine has, so that a test can run with each. If there is none, the test is
// skipped, except in CI, where it fails.
func Programs(t testing.TB) (names []string) {
	t.Helper()
	for _, name := range []string{Redis, Valkey} {
		if _, err := exec.LookPath(name); err == nil {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		need(t, Redis)
	}
	return names
}

// need skips the test if there is no such program. In CI it fails instead, because a test that does not run would look like
// one that passes. Valkey is the exception: not every Debian has it.
func need(t testing.TB, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		if os.Getenv("CI") != "" && program != Valkey {
			t.Fatal(err)
		}
		t.Skipf("%v: apt-get install %s", err, program)
	}
}

// Server is a process of Redis or Valkey.
type Server struct {
	*servertest.Process
	Port   string
	Socket string // the path of its unix socket

	// How Do logs in. They are empty if no login is needed.
	User, Password string

	t testing.TB
}

// Start starts a redis-server that ends with the test. It keeps nothing on disk, unless config, which is added to its
// configuration, says so.
func Start(t testing.TB, config ...string) *Server {
	t.Helper()
	return StartProgram(t, Redis, config...)
}

// StartProgram is Start for one of Programs.
func StartProgram(t testing.TB, program string, config ...string) *Server {
	t.Helper()
	s := prepare(t, program)
	s.configure(append([]string{
		`save ""`,
		"enable-debug-command yes",   // DEBUG SLEEP
		"repl-diskless-sync-delay 0", // a replica need not wait for others to come
	}, config...)...)
	s.Run()
	s.WaitReady()
	return s
}

// TLS returns the configuration of a server that also speaks TLS on a port, and asks for a certificate there.
func TLS(a *servertest.Authority, port string) string {
	return "tls-port " + port + "\ntls-ca-cert-file " + a.CA + "\ntls-cert-file " + a.Cert + "\ntls-key-file " + a.Key
}

// StartReplica starts a replica of a server, and waits until it has everything.
func StartReplica(t testing.TB, of *Server, config ...string) *Server {
	t.Helper()
	s := Start(t, append(config, "replicaof 127.0.0.1 "+of.Port)...)
	s.WaitInfo("replication", "master_link_status:up")
	return s
}

// prepare makes a server that is not started.
func prepare(t testing.TB, program string, flags ...string) *Server {
	t.Helper()
	need(t, program)
	// Not the test's own folder: its path may be longer than the 107 bytes that a unix socket's may have (unix(7)).
	dir, err := os.MkdirTemp("", "redis")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s := &Server{Port: caddytest.FreePort(t), Socket: filepath.Join(dir, "socket"), t: t}
	command := append([]string{program, filepath.Join(dir, "conf")}, flags...)
	s.Process = servertest.NewProcess(t, filepath.Join(dir, "log"), command...)
	return s
}

// configure writes the configuration: what each server has, and more.
func (s *Server) configure(more ...string) {
	s.t.Helper()
	dir := filepath.Dir(s.Socket)
	lines := append([]string{"bind 127.0.0.1", "port " + s.Port, "unixsocket " + s.Socket, "dir " + dir}, more...)
	if err := os.WriteFile(filepath.Join(dir, "conf"), []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// Addr returns the address of the server.
func (s *Server) Addr() string { return "127.0.0.1:" + s.Port }

// URL returns the value of a broker's option for this server.
func (s *Server) URL() string { return "redis://" + s.Addr() }

// WaitReady waits until the server answers, which it does when it has loaded its data from disk.
func (s *Server) WaitReady() {
	s.t.Helper()
	s.WaitListening(s.Addr())
	s.wait("ready", func() (string, bool) {
		err := s.try("PING").Error()
		return fmt.Sprint(err), err == nil || strings.HasPrefix(err.Error(), "NOAUTH")
	})
}

// WaitInfo waits until a section of INFO contains a line.
func (s *Server) WaitInfo(section, line string) {
	s.t.Helper()
	s.wait(line, func() (string, bool) {
		text, err := s.try("INFO", section).ToString()
		return text, err == nil && strings.Contains(text, line+"\r\n")
	})
}

// wait asks until it is so: there is no event to wait for in another process.
func (s *Server) wait(what string, so func() (state string, ok bool)) {
	s.t.Helper()
	for deadline := time.Now().Add(servertest.Patience); ; time.Sleep(5 * time.Millisecond) {
		state, ok := so()
		if ok {
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("%s is not %s: %s\n%s", s.Addr(), what, state, s.Tail())
		}
	}
}

// Do sends a command, as redis-cli would, and returns the answer as text, or <nil> if it is null.
func (s *Server) Do(command ...string) string {
	s.t.Helper()
	answer, err := s.try(command...).ToAny()
	if err != nil && !rueidis.IsRedisNil(err) {
		s.t.Fatalf("%s: %s: %v", s.Addr(), strings.Join(command, " "), err)
	}
	return fmt.Sprint(answer)
}

// try makes a connection for each command, because the server may have been killed since the last one. It is by the unix
// socket, which needs no TLS.
func (s *Server) try(command ...string) rueidis.RedisResult {
	client, err := rueidis.NewClient(rueidis.ClientOption{
		InitAddress: []string{s.Socket}, DialCtxFn: dialUnix, Username: s.User, Password: s.Password,
		ForceSingleClient: true, DisableCache: true, DisableRetry: true,
	})
	if err != nil {
		return rueidis.NewErrorResult(err)
	}
	defer client.Close()
	return client.Do(s.t.Context(), client.B().Arbitrary(command...).Build())
}

func dialUnix(ctx context.Context, path string, d *net.Dialer, _ *tls.Config) (net.Conn, error) {
	return d.DialContext(ctx, "unix", path)
}

// NewProxy starts a proxy to a server, which ends with the test.
func NewProxy(t testing.TB, s *Server) *servertest.Proxy {
	t.Helper()
	return servertest.NewProxy(t, s.Addr(), nil)
}
