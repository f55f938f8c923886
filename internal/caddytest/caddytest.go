// Package caddytest runs a real Caddy in the test's process, and has clients of every kind that talk to it.
package caddytest

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	_ "github.com/caddyserver/caddy/v2/modules/standard"
)

// Main runs a package's tests and returns the exit code. It keeps Caddy's files out of the home directory. If AsCaddy is in
// the environment, it runs Caddy instead, for tests that need a process.
func Main(m *testing.M) int {
	if os.Getenv(AsCaddy) != "" {
		caddycmd.Main()
		return 0
	}
	dir, err := os.MkdirTemp("", "caddy-broadcast")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	os.Setenv("XDG_DATA_HOME", dir)
	os.Setenv("XDG_CONFIG_HOME", dir)
	caddy.DefaultStorage.Path = dir // which is determined before
	return m.Run()
}

// WithHTTP2WebSockets starts the test binary again with the setting that makes Go offer WebSockets over HTTP/2. Go reads it
// from the environment before any code of ours runs, and has it off by default (golang/go#71128). The function returns in the
// new process, or where the system has no exec.
func WithHTTP2WebSockets() {
	debug := os.Getenv("GODEBUG")
	if strings.Contains(debug, "http2xconnect=1") {
		return
	}
	os.Setenv("GODEBUG", strings.TrimPrefix(debug+",http2xconnect=1", ","))
	if self, err := os.Executable(); err == nil {
		err = syscall.Exec(self, os.Args, os.Environ())
		fmt.Fprintln(os.Stderr, "without WebSockets inside HTTP/2:", err)
	}
}

// AsCaddy is the environment variable that turns the test binary into Caddy, for tests that need a process.
const AsCaddy = "CADDY_BROADCAST_TEST_AS_CADDY"

// Server is Caddy, running in this process. There can be one at a time, because Caddy keeps what runs in a package variable
// (currentCtx, caddy.go, v2.11.9). So tests that start one cannot be parallel to each other.
type Server struct {
	T     testing.TB
	Addr  string // host:port of the site
	Admin string // host:port of the admin API
	Log   string // path of the log file
}

// In returns the server for a subtest: failures fail the subtest, and connections end with it.
func (s *Server) In(t testing.TB) *Server {
	// A copy: the test and its subtests use the server at the same time.
	sub := *s
	sub.T = t
	return &sub
}

// nextPort counts up and never goes back, so a port that a test has just closed is not given to the next one.
var nextPort = atomic.Int32{}

// Start runs Caddy with a site's directives, or with a whole Caddyfile if it has braces of its own: ADDR, ADMIN and
// LOG in it are replaced with the server's.
func Start(t testing.TB, config string) *Server {
	t.Helper()
	OwnData(t)
	s := &Server{T: t, Addr: FreeAddr(t), Admin: FreeAddr(t), Log: filepath.Join(t.TempDir(), "log")}
	if err := s.Load(config); err != nil {
		t.Fatal(err)
	}
	stopAfter(t)
	return s
}

// Run runs Caddy with a whole Caddyfile, for tests whose sites are not like those that Start makes.
func Run(t testing.TB, config string) {
	t.Helper()
	OwnData(t)
	if err := Load(config); err != nil {
		t.Fatal(err)
	}
	stopAfter(t)
}

// OwnData keeps what Caddy saves at its end, such as the history, from the next test.
func OwnData(t testing.TB) { t.Setenv("XDG_DATA_HOME", t.TempDir()) }

// stopAfter stops Caddy at the test's end. It fails the test if that fails, because an app of ours that cannot be stopped
// would be left behind in each later test.
func stopAfter(t testing.TB) {
	t.Cleanup(func() {
		if err := caddy.Stop(); err != nil {
			t.Error(err)
		}
	})
}

// Load starts Caddy with a Caddyfile, or replaces the configuration of the one that runs.
func Load(config string) error {
	// true: it is loaded even if it is the same, as a test of reloads wants.
	cfg, err := Adapt(config)
	if err != nil {
		return err
	}
	return caddy.Load(cfg, true)
}

// Frame is the Caddyfile around a test's site. Only our own log messages are at debug level, because with all of them Caddy's
// TLS app logs events while it starts, which the race detector reports.
const Frame = `{
	admin ADMIN
	persist_config off
	log {
		output file LOG
	}
	log ours {
		output file LOG
		level DEBUG
		include http.handlers.broadcast
	}
	GLOBAL
}
http://ADDR {
	SITE
}`

// Load replaces the configuration. Lines of config above a line "---" are global options. A second call is a reload, as an
// operator's: connections of the first configuration go on.
func (s *Server) Load(config string) error {
	s.T.Helper()
	global, site, ok := strings.Cut(config, "---")
	if !ok {
		global, site = "", config
	}
	config = strings.NewReplacer("GLOBAL", global, "SITE", site).Replace(Frame)
	config = strings.NewReplacer("ADDR", s.Addr, "ADMIN", s.Admin, "LOG", s.Log).Replace(config)
	return Load(config)
}

// Adapt converts a Caddyfile to JSON. Warnings are errors, except the one that the file is not formatted. Caddy appends that
// one last (Adapter.Adapt, caddyconfig/caddyfile/adapter.go, v2.11.9), so if it is the first there is no other.
func Adapt(config string) ([]byte, error) {
	cfg, warnings, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(config), map[string]any{"filename": "Caddyfile"})
	if err == nil && len(warnings) > 0 && !strings.Contains(warnings[0].Message, "not formatted") {
		err = errors.New(warnings[0].String())
	}
	return cfg, err
}

// FreeAddr returns an address of this machine that nothing listens on. It is an IP address, because "localhost" may be ::1 to
// one program and 127.0.0.1 to another.
func FreeAddr(t testing.TB) string {
	t.Helper()
	return "127.0.0.1:" + FreePort(t)
}

// FreePort returns a port that nothing listens on. It is below those that the system gives to clients, so that none of
// them takes it before the test does.
func FreePort(t testing.TB) string {
	t.Helper()
	// Packages are tested in parallel, each in a process of its own. They begin far apart, because a port is free
	// here and may be taken by another test before Caddy listens on it.
	nextPort.CompareAndSwap(0, 10_000+int32(os.Getpid()*199%20_000)) // processes far apart
	for range 1000 {
		port := fmt.Sprint(nextPort.Add(1))
		if l, err := net.Listen("tcp", "127.0.0.1:"+port); err == nil {
			l.Close()
			return port
		}
	}
	t.Fatal("no port is free")
	return ""
}
