package doctor_test

import (
	"strings"
	"testing"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
	"github.com/caddy-broadcast/caddy-broadcast/internal/doctor"
)

// upgrades are the lines that any route behind an nginx needs.
const upgrades = "proxy_http_version 1.1;\nproxy_set_header Upgrade $http_upgrade;\nproxy_set_header Connection \"upgrade\";\nproxy_set_header Host $http_host;\n"

// nginxLocations are what stands in a location that does not work. HERE is where it is wrong, and where the printed lines go.
var nginxLocations = []struct {
	name, location string
	wrong          string
	check, found   string
	state          doctor.State
	fix            string
	idle           time.Duration
}{
	{
		name: "as it is installed", location: "HERE", check: "route", state: doctor.Problem,
		found: "in place of", fix: "proxy_set_header Host $http_host;",
	},
	{
		name: "without upgrades", location: "HERE", wrong: "proxy_set_header Host $http_host;", check: "websocket", state: doctor.Problem,
		found: "removes the headers Upgrade and Connection", fix: upgrades,
	},
	{
		name: "without the port in Host", location: strings.Replace(upgrades, "proxy_set_header Host $http_host;", "HERE", 1), wrong: "proxy_set_header Host $host;",
		check: "route", state: doctor.Problem, found: "sends the Host header 127.0.0.1 in place of 127.0.0.1:", fix: "proxy_set_header Host $http_host;",
	},
	{
		name: "that buffers", location: upgrades + "proxy_ignore_headers X-Accel-Buffering;\nHERE", check: "event stream", state: doctor.Problem,
		found: "holds event streams back", fix: "proxy_buffering off;",
	},
	{
		name: "that compresses", location: upgrades + "gzip_types text/event-stream;\ngzip_proxied any;\ngzip_min_length 0;\nHERE", wrong: "gzip on;", check: "event stream", state: doctor.Advice,
		found: "compresses the event stream", fix: "gzip off;",
	},
	{
		name: "that removes the subprotocol", location: upgrades + "HERE", wrong: `proxy_set_header Sec-WebSocket-Protocol "";`, check: "websocket", state: doctor.Problem,
		found: "removes the header Sec-WebSocket-Protocol", fix: "proxy_set_header Sec-WebSocket-Protocol $http_sec_websocket_protocol;",
	},
	{
		name: "that removes the compression", location: upgrades + "HERE", wrong: `proxy_set_header Sec-WebSocket-Extensions "";`, check: "compression", state: doctor.Advice,
		found: "removes the header Sec-WebSocket-Extensions", fix: "proxy_set_header Sec-WebSocket-Extensions $http_sec_websocket_extensions;",
	},
	{
		name: "that changes what is accepted", location: upgrades + "HERE", wrong: `proxy_set_header Accept "*/*";`, check: "event stream", state: doctor.Problem,
		found: "changes the header Accept", fix: "proxy_set_header Accept $http_accept;",
	},
	{
		name: "that cuts off what is silent", location: upgrades + "HERE", wrong: "proxy_read_timeout 1s;", check: "idle", state: doctor.Problem,
		found: "something on the way ends the WebSocket after 1", fix: "proxy_read_timeout 1h;", idle: 1500 * time.Millisecond,
	},
}

// TestNginx: what an nginx in front breaks is named, and the printed lines for it fix it.
func TestNginx(t *testing.T) {
	if testing.Short() {
		t.Skip("takes long")
	}
	port := caddytest.FreePort(t)
	s := caddytest.Start(t, "respond 404\n}\nhttp://:"+port+" {\nbind 127.0.0.1\nbroadcast /ws news {\ncompression on\n}")
	n := startNginx(t, "127.0.0.1:"+port)
	for _, c := range nginxLocations {
		t.Run(c.name, func(t *testing.T) {
			examine := func(here string) doctor.Report {
				o := options(t, "http://"+n.serve(strings.Replace(c.location, "HERE", here, 1))+"/ws")
				o.Admin, o.Idle = admin(t, s), c.idle
				if strings.Contains(c.found, "holds") {
					o.Wait = time.Second
				}
				return run(t, o)
			}
			f := finding(t, examine(c.wrong), c.check, c.state, c.found)
			text := lines(t, f, "nginx")
			if strings.TrimSpace(text) != strings.TrimSpace(c.fix) {
				t.Fatalf("the fix is %q, not %q", text, c.fix)
			}
			report := examine(text)
			// nginx without upgrades for WebSockets has more wrong than one run of nginx's lines can tell.
			if c.name != "as it is installed" {
				healthy(t, report)
			}
			for _, again := range report.Findings {
				if again.Check == c.check && again.State != doctor.OK {
					t.Errorf("after the fix: %+v", again)
				}
			}
		})
	}
	t.Run("that Caddy does not trust", func(t *testing.T) {
		o := options(t, "http://"+n.serve(upgrades)+"/ws")
		o.Admin = admin(t, s)
		f := finding(t, run(t, o), "clients", doctor.Advice, "so all clients have the proxy's address")
		// With $proxy_add_x_forwarded_for clients could choose their address: Caddy takes the first of several.
		if text := lines(t, f, "nginx"); text != "proxy_set_header X-Forwarded-For $remote_addr;" {
			t.Errorf("the fix is %q", text)
		}
	})
	for name, location := range map[string]string{
		"that has a page for the path": "default_type text/html;\nreturn 200 <p>;",
		"that has nothing there":       "return 404;",
	} {
		t.Run(name, func(t *testing.T) {
			o := options(t, "http://"+n.serve(location)+"/ws")
			o.Admin = admin(t, s)
			f := finding(t, run(t, o), "route", doctor.Problem, "a proxy in front responds itself, or changes the path")
			if !strings.Contains(f.Fix, "this Caddy listens on 127.0.0.1:"+port) {
				t.Errorf("the fix is %q", f.Fix)
			}
			text := strings.Replace(lines(t, f, "nginx"), "localhost:8080", n.back, 1)
			o.URL.Host = n.serve(location + "\n}\n" + strings.TrimSuffix(text, "}"))
			healthy(t, run(t, o))
		})
	}
	t.Run("with TLS, asked without", func(t *testing.T) {
		o := options(t, "http://"+n.serve("return 497;")+"/ws") // nginx's own response then
		finding(t, run(t, o), "route", doctor.Problem, "speaks TLS")
	})
	t.Run("that cuts off what is silent, and a route that pings", func(t *testing.T) {
		testPings(t, s, n)
	})
}

// testPings: what is silent for too long can ping in place of a longer limit.
func testPings(t *testing.T, s *caddytest.Server, n *nginx) {
	const location = upgrades + "proxy_read_timeout 2s;"
	o := options(t, "http://"+n.serve(location)+"/ws")
	o.Idle = 2500 * time.Millisecond
	f := finding(t, run(t, o), "idle", doctor.Problem, "in which nothing was sent; the server pings every 25s")
	// Another port, because a connection of nginx that waits at the listener of the old configuration is lost.
	port := caddytest.FreePort(t)
	reload(t, s.Load, "respond 404\n}\nhttp://:"+port+" {\nbind 127.0.0.1\nbroadcast /ws news {\n"+lines(t, f, "Caddyfile")+"\n}")
	n.back = "127.0.0.1:" + port
	o.URL.Host = n.serve(location)
	report := run(t, o)
	healthy(t, report)
	finding(t, report, "idle", doctor.OK, "the WebSocket and the event stream are open; the server pings every 1s")
}
