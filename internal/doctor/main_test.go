package doctor_test

import (
	"context"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	_ "github.com/caddy-broadcast/caddy-broadcast"
	_ "github.com/caddy-broadcast/caddy-broadcast/brokers/nats"
	"github.com/caddy-broadcast/caddy-broadcast/internal/adminclient"
	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
	"github.com/caddy-broadcast/caddy-broadcast/internal/doctor"
	"github.com/caddy-broadcast/caddy-broadcast/internal/subprocess"
)

func TestMain(m *testing.M) { os.Exit(caddytest.Main(m)) }

// options returns what examines a URL quickly. What is held back here is never let through, so a short time to wait changes
// no outcome of it, and what comes does so at once.
func options(t *testing.T, address string) doctor.Options {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	return doctor.Options{URL: u, Wait: 5 * time.Second, Header: make(http.Header)}
}

// admin returns a client of a server's admin API.
func admin(t *testing.T, s *caddytest.Server) *adminclient.Client {
	t.Helper()
	c, err := adminclient.New(s.Admin)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// reload has Caddy go on with another configuration.
func reload(t *testing.T, load func(string) error, config string) {
	t.Helper()
	if err := load(config); err != nil {
		t.Fatal(err)
	}
}

// finding returns what a check has found, which the test expects: its state, and a text in it.
func finding(t *testing.T, r doctor.Report, check string, state doctor.State, found string) doctor.Finding {
	t.Helper()
	for _, f := range r.Findings {
		if f.Check == check && f.State == state && strings.Contains(f.Found, found) {
			if r.OK != (state != doctor.Problem) && state == doctor.Problem {
				t.Errorf("all is well, with %+v", f)
			}
			return f
		}
	}
	t.Fatalf("no %s of %s with %q in %s", state, check, found, show(r))
	return doctor.Finding{}
}

// lines returns the lines of a finding for a program.
func lines(t *testing.T, f doctor.Finding, of string) string {
	t.Helper()
	for _, l := range f.Lines {
		if l.Of == of {
			return l.Text
		}
	}
	t.Fatalf("no lines of %s in %+v", of, f)
	return ""
}

// healthy expects that nothing is wrong.
func healthy(t *testing.T, r doctor.Report) {
	t.Helper()
	if !r.OK {
		t.Errorf("after the fix: %s", show(r))
	}
}

// show returns the findings that are not ok.
func show(r doctor.Report) string {
	var b strings.Builder
	for _, f := range r.Findings {
		if f.State != doctor.OK {
			b.WriteString("\n" + string(f.State) + " " + f.Check + ": " + f.Found + " | " + f.Fix)
			for _, l := range f.Lines {
				b.WriteString(" | " + l.Of + ": " + l.Text)
			}
		}
	}
	return b.String()
}

func run(t *testing.T, o doctor.Options) doctor.Report {
	t.Helper()
	return doctor.Run(context.WithoutCancel(t.Context()), o)
}

// nginx is an nginx in front of a Caddy.
type nginx struct {
	t    *testing.T
	addr string
	back string
	dir  string
	cmd  *exec.Cmd
}

// startNginx returns an nginx that does not run yet.
func startNginx(t *testing.T, back string) *nginx {
	t.Helper()
	if _, err := exec.LookPath("nginx"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skipf("%v: apt-get install nginx", err)
	}
	return &nginx{t: t, back: back, dir: t.TempDir()}
}

// serve runs it with lines in its location, in place of those before.
func (n *nginx) serve(location string) (addr string) {
	n.t.Helper()
	n.stop()
	n.addr = caddytest.FreeAddr(n.t)
	config := strings.NewReplacer("DIR", n.dir, "ADDR", n.addr, "BACK", n.back, "LOCATION", location).Replace(`
		daemon off;
		worker_processes 1;
		pid DIR/pid;
		error_log DIR/error.log;
		events {}
		http {
			access_log off;
			client_body_temp_path DIR/body;
			proxy_temp_path DIR/proxy;
			fastcgi_temp_path DIR/fastcgi;
			uwsgi_temp_path DIR/uwsgi;
			scgi_temp_path DIR/scgi;
			server {
				listen ADDR;
				location / {
					proxy_pass http://BACK;
					LOCATION
				}
			}
		}`)
	file := filepath.Join(n.dir, "nginx.conf")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		n.t.Fatal(err)
	}
	n.cmd = exec.Command("nginx", "-c", file, "-p", n.dir, "-e", filepath.Join(n.dir, "error.log"))
	n.cmd.Stderr = os.Stderr
	subprocess.DieWithParent(n.cmd)
	if err := n.cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(n.stop)
	caddytest.AwaitAddr(n.t, n.addr)
	return n.addr
}

func (n *nginx) stop() {
	if n.cmd != nil {
		n.cmd.Process.Kill()
		n.cmd.Wait()
		n.cmd = nil
	}
}
