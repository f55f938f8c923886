package doctor_test

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
	"github.com/caddy-broadcast/caddy-broadcast/internal/doctor"
)

// broken is a site that does not work. HERE in config is where it is wrong, and where the lines go that fix it.
type broken struct {
	name   string
	config string // of the site at ADDR, and of others; BACK is the address of another site
	wrong  string // in place of HERE
	more   func(*doctor.Options)

	check, found string
	state        doctor.State // "" is a problem
	fix          string       // a part of the lines
}

// frontAny is a proxy, and a site behind it for any name, so that the proxy may send any Host.
const frontAny = "reverse_proxy BACK {\n%HERE\n}\n}\nhttp://:PORT {\nbind 127.0.0.1\nbroadcast /ws news"

// frontNamed is a proxy, and a site behind it that has the same name.
const frontNamed = "respond 404\n}\nhttp://site.localhost:FRONT {\nbind 127.0.0.1\nreverse_proxy BACK {\n%HERE\n}\n}\nhttp://site.localhost:PORT {\nbind 127.0.0.1\nbroadcast /ws news"

// named has the proxy asked for the site's name.
func named(o *doctor.Options) { o.URL.Host = "site.localhost:" + o.URL.Port() }

var brokenSites = []broken{
	{
		name: "a single-page app", config: "root ROOT\n%HERE", wrong: "broadcast /ws news\ntry_files {path} /index.html\nfile_server",
		check: "route", found: "try_files comes before the route, and rewrites its path", fix: "handle /ws {\n\tbroadcast news\n}",
	},
	{
		name: "no route", config: "%HERE\nrespond 404", wrong: "broadcast /other",
		check: "route", found: "there is no route for", fix: "broadcast /ws",
	},
	{
		name: "a proxy that changes Host", config: frontAny, wrong: "header_up Host {upstream_hostport}",
		check: "route", found: "a proxy in front sends the Host header", fix: "header_up Host {http.request.hostport}",
	},
	{
		name: "a proxy that changes Host, and a site with a name", config: frontNamed, wrong: "header_up Host {upstream_hostport}",
		check: "route", found: "the request does not reach it: a proxy in front sends another Host header", fix: "header_up Host {http.request.hostport}",
		more: named,
	},
	{
		name: "a proxy that changes Host, a site with a name, and no admin API", config: frontNamed, wrong: "header_up Host {upstream_hostport}",
		check: "route", found: "or a proxy in front sends another Host header", fix: "header_up Host {http.request.hostport}",
		more: func(o *doctor.Options) { named(o); o.Admin = nil },
	},
	{
		name: "a proxy that changes Host, and a site that hides why", config: frontAny + "\nhandle_errors {\nrespond \"no\" 403\n}", wrong: "header_up Host {upstream_hostport}",
		check: "route", found: "a proxy in front sends another Host header", fix: "header_up Host {http.request.hostport}",
	},
	{
		name: "a page of another origin", config: "broadcast /ws {\n%HERE\n}",
		more:  func(o *doctor.Options) { o.Origin = "https://app.example.com" },
		check: "route", found: "pages of https://app.example.com may not use the route", fix: "origins https://app.example.com",
	},
	{
		name: "any origin", config: "broadcast /ws {\n%HERE\n}", wrong: "origins *",
		check: "origin", state: doctor.Advice, found: "pages of any site may use the route", fix: "origins http://ADDR",
	},
	{
		name: "a proxy that strips Upgrade", config: "%HERE\n}\nhttp://:PORT {\nbind 127.0.0.1\nbroadcast /ws news",
		wrong: "reverse_proxy BACK {\nheader_up -Upgrade\nheader_up -Connection\n}",
		check: "websocket", found: "removes the headers Upgrade and Connection", fix: "reverse_proxy <address of this Caddy>",
	},
	{
		name: "a proxy that strips the subprotocol", config: frontAny, wrong: "header_up -Sec-WebSocket-Protocol",
		check: "websocket", found: "removes the header Sec-WebSocket-Protocol",
	},
	{
		name: "a proxy that buffers", config: frontAny, wrong: "response_buffers 1MiB",
		more:  func(o *doctor.Options) { o.Wait = 500 * time.Millisecond },
		check: "event stream", found: "holds event streams back", fix: "flush_interval -1",
	},
	{
		name: "a proxy that removes the compression of WebSockets", config: strings.Replace(frontAny, "broadcast /ws news", "broadcast /ws news {\ncompression on\n}", 1), wrong: "header_up -Sec-WebSocket-Extensions",
		check: "compression", state: doctor.Advice, found: "removes the header Sec-WebSocket-Extensions",
	},
	{
		name: "a directive that holds responses back", config: "intercept {\n@ok status 200\nhandle_response @ok {\nrespond other\n}\n}\nbroadcast /ws",
		check: "event stream", found: "holds responses back, such as intercept",
	},
	{
		name: "a header that changes event streams", config: "header >Content-Type text/plain\nbroadcast /ws",
		check: "event stream", found: "changes the Content-Type of event streams",
	},
	{
		name: "no WebSockets", config: "broadcast /ws {\n%HERE\n}\nrespond 404", wrong: "transports sse post",
		check: "websocket", found: "the route does not accept WebSockets", fix: "transports websocket sse post",
	},
	{
		name: "no event streams", config: "broadcast /ws {\n%HERE\n}\nrespond 404", wrong: "transports websocket",
		check: "event stream", state: doctor.Advice, found: "the route does not accept event streams", fix: "transports websocket sse post",
	},
	{
		name: "a redirect", config: "redir /ws /live\nbroadcast /live",
		check: "route", found: "the server redirects to",
	},
	{
		name: "a redirect to https", config: "redir https://ADDR{uri}",
		check: "route", found: "the server redirects to https://",
	},
	{
		name: "a gateway without a backend", config: "reverse_proxy BACK",
		check: "route", found: "a proxy in front does not reach Caddy (502",
	},
	{
		name: "a wrong channel", config: "broadcast /ws {query.room}",
		check: "route", found: "400 Bad Request",
	},
	{
		name: "a proxy that Caddy does not trust", config: "%HERE\n---\n" + strings.Replace(frontAny, "%HERE", "", 1),
		check: "clients", state: doctor.Advice, found: "so all clients have the proxy's address", fix: "trusted_proxies static private_ranges",
	},
	{
		name: "publishing is off", config: "broadcast /ws {\n%HERE\n}", wrong: "publish off",
		more:  func(o *doctor.Options) { o.Publish = true },
		check: "delivery", state: doctor.Advice, found: "publishing is off on this route", fix: "publish on",
	},
}

// TestBroken: what is wrong with a site is named, and the printed lines fix it.
func TestBroken(t *testing.T) {
	s := caddytest.Start(t, "broadcast /ws")
	root := t.TempDir()
	if err := os.WriteFile(root+"/index.html", []byte("<!doctype html>the page"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range brokenSites {
		t.Run(c.name, func(t *testing.T) {
			o := options(t, "http://"+s.Addr+"/ws")
			o.Admin = admin(t, s)
			if c.more != nil {
				c.more(&o)
			}
			load := func(here string) {
				t.Helper()
				// Another port each time: a proxy's connection that waits at the listener of the old configuration is lost.
				port := caddytest.FreePort(t)
				names := strings.NewReplacer("BACK", "127.0.0.1:"+port, "PORT", port, "ROOT", root, "ADDR", s.Addr, "FRONT", o.URL.Port())
				reload(t, s.Load, names.Replace(strings.Replace(c.config, "%HERE", here, 1)))
			}
			load(c.wrong)
			state := c.state
			if state == "" {
				state = doctor.Problem
			}
			f := finding(t, run(t, o), c.check, state, c.found)
			if c.fix == "" {
				return
			}
			text := lines(t, f, "Caddyfile")
			if !strings.Contains(text, strings.ReplaceAll(c.fix, "ADDR", s.Addr)) {
				t.Fatalf("the fix is %q and lacks %q", text, c.fix)
			}
			load(strings.Replace(text, "<address of this Caddy>", "BACK", 1))
			report := run(t, o)
			healthy(t, report)
			for _, again := range report.Findings {
				if again.Check == c.check && again.State != doctor.OK {
					t.Errorf("after the fix: %+v", again)
				}
			}
		})
	}
}
