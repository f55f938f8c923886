package doctor_test

import (
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
	"github.com/caddy-broadcast/caddy-broadcast/internal/doctor"
	"github.com/caddy-broadcast/caddy-broadcast/internal/natstest"
	"github.com/caddy-broadcast/caddy-broadcast/internal/servertest"
)

// TestUnreachable: a server that cannot be reached.
func TestUnreachable(t *testing.T) {
	s := caddytest.Start(t, "broadcast /ws")
	_, port, _ := net.SplitHostPort(s.Addr)
	t.Run("a name without an address", func(t *testing.T) {
		o := options(t, "http://doctor.invalid:"+port+"/ws") // RFC 6761, section 6.4
		f := finding(t, run(t, o), "dns", doctor.Problem, "doctor.invalid")
		if text := lines(t, f, "shell"); !strings.Contains(text, "--connect <address of the server>:"+port+" http://doctor.invalid") {
			t.Errorf("the fix is %q", text)
		}
		reload(t, s.Load, "respond 404\n}\nhttp://doctor.invalid:"+port+" {\nbroadcast /ws")
		o.Connect = "127.0.0.1:" + port
		healthy(t, run(t, o))
	})
	t.Run("a port on which nobody listens", func(t *testing.T) {
		addr := caddytest.FreeAddr(t)
		o := options(t, "http://"+addr+"/ws")
		o.Admin = admin(t, s)
		f := finding(t, run(t, o), "tcp", doctor.Problem, "nothing listens at "+addr)
		if !strings.Contains(f.Fix, "this Caddy listens on :"+port) {
			t.Errorf("the fix is %q", f.Fix)
		}
		reload(t, s.Load, "respond 404\n}\n"+strings.TrimSuffix(lines(t, f, "Caddyfile"), "}"))
		healthy(t, run(t, o))
	})
	t.Run("a server that does not respond", func(t *testing.T) {
		proxy := servertest.NewProxy(t, s.Addr, nil)
		proxy.Hold()
		o := options(t, "http://"+proxy.Addr()+"/ws")
		o.Wait = 200 * time.Millisecond
		finding(t, run(t, o), "route", doctor.Problem, "does not respond within 200ms")
	})
}

// TestAuthentication: a route behind authentication, and the ways to give doctor credentials.
func TestAuthentication(t *testing.T) {
	s := caddytest.Start(t, `basic_auth /ws {
		Ann $2a$04$PkcVHxbMrnOUnST5f4gKJONzph1TgD9FoBQt0dxs7scnXU5EI3QUK
	}
	broadcast /ws
	@token header Authorization "Bearer t"
	broadcast @token
	respond /token 401`)
	o := options(t, "http://"+s.Addr+"/ws")
	f := finding(t, run(t, o), "route", doctor.Problem, "the route is behind authentication (401 Unauthorized, which asks for Basic")
	const password = "http://<user>:<password>@" // the only credentials that a route with basic_auth accepts
	if text := lines(t, f, "shell"); !strings.Contains(text, password) || len(f.Lines) > 1 {
		t.Errorf("the fix is %v", f.Lines)
	}
	o.URL.User = url.UserPassword("Ann", "wrong")
	f = finding(t, run(t, o), "route", doctor.Problem, "rejects these credentials")
	if text := lines(t, f, "shell"); !strings.Contains(text, password+s.Addr) || len(f.Lines) > 1 {
		t.Errorf("the fix is %v", f.Lines)
	}
	o = options(t, "http://"+s.Addr+"/token")
	f = finding(t, run(t, o), "route", doctor.Problem, "the route is behind authentication (401")
	if text := lines(t, f, "shell"); !strings.Contains(text, "--header 'Cookie: ") || len(f.Lines) != 3 {
		t.Errorf("the fix is %v", f.Lines)
	}
	o.Header.Set("Authorization", "Bearer t")
	healthy(t, run(t, o))
}

// TestForwardAuth: Caddy passes an app's rejection on with a Via, and that is no proxy in front of it.
func TestForwardAuth(t *testing.T) {
	port := caddytest.FreePort(t)
	app := "127.0.0.1:" + port
	s := caddytest.Start(t, "forward_auth /ws "+app+" {\nuri /auth\n}\nbroadcast /ws\n}\nhttp://:"+port+` {
	bind 127.0.0.1
	@in header Authorization "Bearer t"
	respond @in 204
	respond "log in first" 401`)
	o := options(t, "http://"+s.Addr+"/ws")
	o.Admin = admin(t, s)
	report := run(t, o)
	finding(t, report, "route", doctor.Problem, "the route is behind authentication (401 Unauthorized")
	for _, f := range report.Findings {
		if f.Check == "clients" {
			t.Errorf("%s: %s", f.State, f.Found)
		}
	}
	o.Header.Set("Authorization", "Bearer t")
	healthy(t, run(t, o))
}

// TestPublishOnly: a route on which clients can only publish, such as one for containers, is not a problem.
func TestPublishOnly(t *testing.T) {
	s := caddytest.Start(t, "broadcast /publish/* {path.1} {\nsubscribe off\n}")
	o := options(t, "http://"+s.Addr+"/publish/orders")
	o.Admin, o.Publish = admin(t, s), true
	r := run(t, o)
	healthy(t, r)
	finding(t, r, "websocket", doctor.OK, "it opens, on no channel")
	finding(t, r, "delivery", doctor.Skipped, "clients of the route only publish")
	finding(t, r, "delivery", doctor.OK, "is accepted, and does not come back")
	for _, f := range r.Findings {
		if f.Check == "resume" {
			t.Errorf("nothing resumes, but %+v", f)
		}
	}
}

// TestNoPath: a URL without the path of the route.
func TestNoPath(t *testing.T) {
	s := caddytest.Start(t, "broadcast /ws\nheader Content-Type text/html\nrespond / <p>")
	o := options(t, "http://"+s.Addr)
	o.Admin = admin(t, s)
	f := finding(t, run(t, o), "route", doctor.Problem, "the URL has no path")
	if !strings.Contains(f.Fix, "this Caddy has these routes: 127.0.0.1/ws") {
		t.Errorf("the fix is %q", f.Fix)
	}
}

// TestAnyName: a site without a name.
func TestAnyName(t *testing.T) {
	port := caddytest.FreePort(t)
	s := caddytest.Start(t, "respond 404\n}\nhttp://:"+port+" {\nbind 127.0.0.1\nbroadcast /ws")
	o := options(t, "http://127.0.0.1:"+port+"/ws")
	f := finding(t, run(t, o), "names", doctor.Advice, "DNS rebinding")
	reload(t, s.Load, "respond 404\n}\n"+strings.TrimSuffix(lines(t, f, "Caddyfile"), "}"))
	finding(t, run(t, o), "names", doctor.OK, "does not respond to other names")
}

// TestPublishesNothing: without --publish nobody else on the route gets anything, and with it everybody does.
func TestPublishesNothing(t *testing.T) {
	s := caddytest.Start(t, "broadcast {\nhistory 10\n}\n---\nbroadcast /ws news")
	other := s.Dial("/ws", nil)
	o := options(t, "http://"+s.Addr+"/ws")
	o.Admin = admin(t, s)
	r := run(t, o)
	healthy(t, r)
	finding(t, r, "delivery", doctor.OK, "a message arrives on the WebSocket in")
	s.Publish("channel=news", "the first")
	s.Expect(other, "the first")
	s.WaitTotals(func(v caddytest.Totals) bool { return v.Connections == 1 }) // doctor's have ended
	if _, channels := s.Do("GET", s.Admin+"/broadcast/channels", ""); strings.Contains(channels, "doctor") {
		t.Errorf("something is left: %s", channels)
	}
	o.Publish, o.Admin = true, nil
	finding(t, run(t, o), "delivery", doctor.OK, "a message that the client publishes comes back on news")
	if _, got, err := other.Read(t.Context()); err != nil || !strings.HasPrefix(string(got), `{"doctor":"`) {
		t.Errorf("got %s, %v", got, err)
	}
	if _, kept := s.Do("GET", s.Admin+"/broadcast/channels/news/messages", ""); strings.Contains(kept, "doctor") {
		t.Errorf("it is kept: %s", kept)
	}
}

// TestTwoHubs: a load balancer in front of two Caddys, which share no messages until they have the broker of the printed lines.
func TestTwoHubs(t *testing.T) {
	if testing.Short() {
		t.Skip("takes long")
	}
	nats := natstest.Start(t, "")
	site := func(admin, port, broker string) string {
		return fmt.Sprintf("{\nadmin %s\npersist_config off\n%s\n}\nhttp://:%s {\nbind 127.0.0.1\nbroadcast /ws news\n}\n", admin, broker, port)
	}
	own, other := caddytest.FreePort(t), caddytest.FreePort(t)
	s := caddytest.Start(t, "respond starting")
	balancer := "\nhttp://" + s.Addr + " {\nreverse_proxy 127.0.0.1:" + own + " 127.0.0.1:" + other + " {\nlb_policy round_robin\n}\n}\n"
	file := filepath.Join(t.TempDir(), "Caddyfile")
	start := func(broker string) (stop func()) {
		reload(t, caddytest.Load, site(s.Admin, own, broker)+balancer)
		if err := os.WriteFile(file, []byte(site(caddytest.FreeAddr(t), other, broker)), 0o600); err != nil {
			t.Fatal(err)
		}
		cmd, ended := caddytest.StartProcess(t, os.Args[0], file, "127.0.0.1:"+other)
		return func() { cmd.Process.Kill(); <-ended }
	}
	stop := start("")
	o := options(t, "http://"+s.Addr+"/ws")
	f := finding(t, run(t, o), "resume", doctor.Problem, "two connections are on different hubs")
	stop()
	stop = start(strings.Replace(lines(t, f, "Caddyfile"), "nats://localhost:4222", nats.URL(), 1))
	defer stop()
	s.WaitTotals(func(caddytest.Totals) bool {
		status, _ := s.Do("GET", s.Admin+"/broadcast/health", "")
		return status == 204
	})
	report := run(t, o)
	healthy(t, report)
	finding(t, report, "resume", doctor.OK, "after a cut it resumes")
}
