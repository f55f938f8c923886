package integration

import (
	"crypto/tls"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/quic-go/quic-go/http3"

	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
)

// TestExit: when the process is told to end, clients of every transport are told why, and it ends.
func TestExit(t *testing.T) {
	sigterm := func(_ *caddytest.Server, cmd *exec.Cmd) { cmd.Process.Signal(syscall.SIGTERM) }
	stop := func(s *caddytest.Server, _ *exec.Cmd) {
		if status, body := s.Do("POST", s.Admin+"/stop", ""); status != 200 {
			t.Error(status, body)
		}
	}
	t.Run("SIGTERM", func(t *testing.T) { testExit(t, "", sigterm) })
	t.Run("caddy stop", func(t *testing.T) { testExit(t, "", stop) })
	t.Run("upgrade of the binary, spread", func(t *testing.T) { testExit(t, "broadcast {\n shutdown_delay 500ms\n history 100\n }", sigterm) })
}

// exiting is Caddy as a process of its own, from a binary that can be replaced.
type exiting struct {
	*caddytest.Server
	secure       string // host:port of the site with TLS
	binary, file string
	replaced     bool // the binary is there already
}

func prepareExit(t testing.TB, global string) *exiting {
	s := &caddytest.Server{T: t, Addr: caddytest.FreeAddr(t), Admin: caddytest.FreeAddr(t), Log: filepath.Join(t.TempDir(), "log")}
	_, port, _ := net.SplitHostPort(caddytest.FreeAddr(t))
	config := strings.NewReplacer("GLOBAL", "auto_https off\n"+global, "SITE", `broadcast /ws
	}
	https://localhost:`+port+` {
		`+caddytest.Certificate(t)+`
		broadcast /ws`).Replace(caddytest.Frame)
	config = strings.NewReplacer("ADDR", s.Addr, "ADMIN", s.Admin, "LOG", s.Log).Replace(config)
	file := filepath.Join(t.TempDir(), "Caddyfile")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	return &exiting{Server: s, secure: "localhost:" + port, binary: filepath.Join(t.TempDir(), "caddy"), file: file}
}

// start makes the binary, unless that was done, and runs it.
func (s *exiting) start(t testing.TB) (cmd *exec.Cmd, ended chan error) {
	if !s.replaced {
		s.makeBinary(t)
	}
	s.replaced = false
	cmd, ended = caddytest.StartProcess(t, s.binary, s.file, s.Addr, s.secure)
	s.WaitRunning()
	return cmd, ended
}

// makeBinary makes the binary as `caddy upgrade` does it: a new file of the same name.
func (s *exiting) makeBinary(t testing.TB) {
	os.Remove(s.binary)
	if p, err := os.ReadFile(os.Args[0]); err != nil {
		t.Fatal(err)
	} else if err := os.WriteFile(s.binary, p, 0o700); err != nil {
		t.Fatal(err)
	}
}

// connect opens connections of every kind, and returns what checks that each is told of the end.
func (s *exiting) connect(t *testing.T) (expectEnds func()) {
	h3 := &http3.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	t.Cleanup(func() { h3.Close() })
	var sockets []*websocket.Conn
	for range 20 {
		sockets = append(sockets, s.Dial("/ws", nil))
	}
	var streams []func() string
	for _, url := range []string{"http://" + s.Addr, "https://" + s.secure} {
		_, next := s.Stream(url + "/ws")
		next()
		next()
		streams = append(streams, next)
	}
	tunnels := []*caddytest.Tunnel{s.DialTunnel(s.HTTP2(), "https://"+s.secure+"/ws"), s.DialTunnel(h3, "https://"+s.secure+"/ws")}
	return func() {
		for _, c := range sockets {
			s.ExpectClose(c, websocket.StatusServiceRestart)
		}
		for _, next := range streams {
			if got := next(); !strings.HasPrefix(got, "retry: ") {
				t.Errorf("a stream ends with %q", got)
			}
			if got := next(); got != "EOF" {
				t.Errorf("%q after a stream's end", got)
			}
		}
		for i, c := range tunnels {
			if code := s.CloseOf(c); code != 1012 {
				t.Errorf("tunnel %d ends with %v", i, code)
			}
			c.End()
		}
	}
}

// testExit has a process end, and another take its place.
func testExit(t *testing.T, global string, stop func(*caddytest.Server, *exec.Cmd)) {
	s := prepareExit(t, global)
	cmd, ended := s.start(t)
	last := s.Publish("", "before")
	expectEnds := s.connect(t)

	begin := time.Now()
	var stopping sync.WaitGroup
	stopping.Go(func() { stop(s.Server, cmd) }) // Caddy answers when its servers have stopped
	defer stopping.Wait()
	expectEnds()
	select {
	case err := <-ended:
		t.Logf("ended after %v: %v", time.Since(begin).Round(time.Millisecond), err)
	case <-time.After(10 * time.Second):
		t.Fatal("it does not end")
	}

	s.start(t)
	want := `{"gap":`
	if strings.Contains(global, "history") {
		want = `"resumed":true`
	}
	c := s.Dial("/ws?last_id="+last, &websocket.DialOptions{Subprotocols: []string{"broadcast.v1"}})
	if _, hello, err := c.Read(t.Context()); err != nil || !strings.Contains(string(hello), want) {
		t.Errorf("who comes back is told %s, %v", hello, err)
	}
}
