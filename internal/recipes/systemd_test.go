package recipes

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
)

// service is what systemd knows of a service: it gets what the process reports (sd_notify(3)).
type service struct {
	*site
	unit    string
	reports chan string
	env     []string
}

// newService does what systemd does for a unit of Type=notify.
func newService(r *recipe, s *site, unit string) *service {
	r.Helper()
	dir, err := os.MkdirTemp("", "cb") // the recipe's is too long for the name of a socket
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "notify")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { l.Close() })
	v := &service{site: s, unit: unit, reports: make(chan string, 100), env: []string{"NOTIFY_SOCKET=" + socket}}
	go func() {
		for p := make([]byte, 1000); ; {
			n, err := l.Read(p)
			if err != nil {
				return
			}
			v.reports <- string(p[:n])
		}
	}()
	return v
}

// reported waits until the process has reported a state.
func (v *service) reported(want string) {
	v.T.Helper()
	for timeout := time.After(20 * time.Second); ; {
		select {
		case got := <-v.reports:
			if got == want {
				return
			}
		case <-timeout:
			v.T.Fatalf("it does not report %s", want)
		}
	}
}

// command returns the command of the unit's line.
func (v *service) command(key string) *exec.Cmd {
	v.T.Helper()
	m := regexp.MustCompile("(?m)^" + key + "=(.+)$").FindStringSubmatch(v.unit)
	if m == nil {
		v.T.Fatalf("the unit has no %s", key)
	}
	cmd := v.shell(m[1])
	cmd.Env = append(cmd.Env, v.env...)
	return cmd
}

// start starts the service, and waits until it is ready.
func (v *service) start() *running {
	v.T.Helper()
	c := start(v.T, v.command("ExecStart"))
	v.reported("READY=1")
	return c
}

// stop stops the service.
func (v *service) stop(c *running) {
	v.T.Helper()
	c.cmd.Process.Signal(syscall.SIGTERM)
	v.reported("STOPPING=1")
	c.wait("(it has ended)")
}

// verify has systemd read a unit, which must have nothing that it does not understand.
func verify(t testing.TB, unit string) {
	t.Helper()
	out, err := exec.Command(program(t, "systemd-analyze", "systemd"), "verify", "--man=no", unit).CombinedOutput()
	if err != nil || len(out) > 0 {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
}

func testSystemd(r *recipe) {
	s := newSite(r)
	config := filepath.Join(s.dir, "Caddyfile")
	caddy := filepath.Join(s.dir, "bin/caddy")
	unit := r.get("ini", 0, "/usr/local/bin/caddy", caddy, "/etc/caddy/Caddyfile", config)
	verify(r, s.write("units/caddy.service", unit))
	s.write("package/caddy.service", "[Unit]\nDescription=a package's\n[Service]\nType=notify\nExecStart=/bin/true run\nExecReload=/bin/true reload\nTimeoutStopSec=5s\n")
	s.write("package/caddy.service.d/override.conf", r.get("ini", 1, "/usr/local/bin/caddy", caddy, "/etc/caddy/Caddyfile", config))
	verify(r, filepath.Join(s.dir, "package/caddy.service"))

	caddytest.OwnData(r)
	root := r.TempDir()
	text := s.localize(r.get("caddyfile", 0, "/srv/app", root, "shutdown_delay 5s", "shutdown_delay 100ms"))
	s.write("Caddyfile", text)
	v := newService(r, s, unit)
	c := v.start()
	s.expect(r.get("sh", 2), "http.handlers.broadcast", "connections")
	const follow = "curl -N -H 'Accept: text/event-stream' https://example.com/ws"
	stream := s.follow(follow)
	stream.wait("retry:")
	first := s.Publish("", "first")
	stream.wait("data: first")

	s.write("Caddyfile", strings.Replace(text, "\tbroadcast /ws\n", "\tbroadcast /ws\n\trespond /version 2\n", 1))
	if out, err := v.command("ExecReload").CombinedOutput(); err != nil {
		r.Fatal(err, string(out))
	}
	v.reported("RELOADING=1")
	v.reported("READY=1")
	s.expect("curl https://example.com/version", "2")
	s.Publish("", "second")
	stream.wait("data: second")

	v.stop(c)
	stream.wait("(it has ended)")
	c = v.start()
	again := s.follow(follow + " -H 'Last-Event-ID: " + first + "'")
	if out := again.wait("data: second"); strings.Contains(out, "event: gap") {
		r.Error(out)
	}
	v.stop(c)
}
