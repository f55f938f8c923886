package integration

import (
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
)

// validate does what caddy validate does.
func validate(t *testing.T, config string) error {
	t.Helper()
	cfg, err := caddytest.Adapt(config)
	if err != nil {
		return err
	}
	var c *caddy.Config
	if err := caddy.StrictUnmarshalJSON(cfg, &c); err != nil {
		t.Fatal(err)
	}
	return caddy.Validate(c)
}

// TestSwallowedPosts: a route that would take every POST of its site is refused.
func TestSwallowedPosts(t *testing.T) {
	for _, c := range []struct{ site, want string }{
		{"broadcast", `write "broadcast /ws"`},
		{"broadcast ws", `write "broadcast /ws"`},
		{"broadcast news", `write "broadcast /news", put it into "handle /news { … }", or list the transports`},
		{"broadcast * {path.1}", `write "broadcast /ws"`},
		{"broadcast {\npublish off\n}", "takes every POST"},
		{"handle {\nbroadcast\n}", "takes every POST"},
		{"route {\nbroadcast ws\nreverse_proxy localhost:1\n}", "takes every POST"},
		{"handle /api/* {\nrespond api\n}\nhandle {\nroute {\nbroadcast\n}\n}", "takes every POST"},

		{"broadcast /ws", ""},
		{"broadcast /ws ws", ""},
		{"broadcast /*", ""},
		{"@ok header Authorization secret\nbroadcast @ok", ""},
		{"handle /ws {\nbroadcast\n}", ""},
		{"handle_path /a/* {\nroute {\nbroadcast\n}\n}", ""},
		{"route /ws {\nbroadcast ws\n}", ""},
		{"@ws host ws.a.test\nhandle @ws {\nbroadcast\n}\nreverse_proxy localhost:1", ""},
		{"@ws host ws.a.test\nbroadcast @ws", ""},
		{"broadcast {\npublish off\n}", "takes every POST of its site, and refuses it"},
		{"broadcast ws {\ntransports websocket sse\n}", ""},
		{"broadcast {\ntransports post\n}", ""},
		{"reverse_proxy localhost:1 {\nhandle_response {\nbroadcast\n}\n}", ""}, // cannot be told
	} {
		for _, site := range []string{":80", "http://a.test", "http://a.test http://b.test"} {
			err := validate(t, site+" {\n"+c.site+"\n}\nhttp://c.test {\nrespond other\n}")
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: %s: %v, not %q", site, c.site, err, c.want)
			}
		}
	}
	if err := validate(t, "http://a.test/ws {\nbroadcast\n}"); err != nil {
		t.Errorf("a site with a path: %v", err)
	}
}

// TestTryFiles: next to try_files a route gets no request, which the log tells; the lines that it names do work.
func TestTryFiles(t *testing.T) {
	root := t.TempDir()
	if err := os.WriteFile(root+"/index.html", []byte("the page"), 0o644); err != nil {
		t.Fatal(err)
	}
	hidden := []string{
		"broadcast /ws\ntry_files {path} /index.html\nfile_server",
		"try_files {path} {path}/ /index.html\nroute /ws {\nbroadcast\n}\nfile_server",
		"handle /ws {\nbroadcast\n}\ntry_files {path} /index.html\nfile_server",
		"try_files {path} /index.html?{query}\nbroadcast /ws\nfile_server",
		"@ws path_regexp ^/ws$\nbroadcast @ws\ntry_files {path} /index.html\nfile_server",
	}
	good := []string{
		"handle /ws {\nbroadcast\n}\nhandle {\ntry_files {path} /index.html\nfile_server\n}",
		"broadcast /ws\ntry_files {path}.html {path}\nfile_server",
		"route {\nbroadcast /ws\ntry_files {path} /index.html\nfile_server\n}",
		"handle /app/* {\ntry_files {path} /index.html\nfile_server\n}\nbroadcast /ws",
		"broadcast /ws\nphp_fastcgi localhost:1",
		"@ws path_regexp ^/(ws|index.html)$\nbroadcast @ws\ntry_files {path} /index.html\nfile_server",
	}
	const warning = "no request reaches this route: try_files comes first, and rewrites "
	suggestion := regexp.MustCompile(`rewrites /ws to a file; write \\"handle /ws { broadcast }\\"|rewrites \^/ws\$ to a file; write \\"handle @`)
	for i, config := range append(hidden, good...) {
		s := caddytest.Start(t, "root "+root+"\n"+config)
		log, _ := os.ReadFile(s.Log)
		if got, want := strings.Contains(string(log), warning), i < len(hidden); got != want {
			t.Errorf("%s: warned %v\n%s", config, got, log)
		}
		if i < len(hidden) && !suggestion.Match(log) {
			t.Errorf("%s: says\n%s", config, log)
		}
		_, resp, err := s.TryDial("/ws", nil)
		if (err == nil) != (i >= len(hidden)) {
			t.Errorf("%s: %v %v", config, resp, err)
		}
	}
}

// TestRoutes: the admin API lists the routes of the running configuration.
func TestRoutes(t *testing.T) {
	s := caddytest.Start(t, `root `+t.TempDir()+`
		try_files {path} /index.html
		broadcast /hidden
	}
	http://a.test, http://*.b.test {
		handle /chat/* {
			broadcast room:{path.1} {
				publish off
				compression on
				transports websocket
			}
		}`)
	status, got := s.Do("GET", s.Admin+"/broadcast/routes", "")
	type route struct {
		Hosts, Paths, Channels, Transports, Warnings []string
		Publish, Subscribe, Compression              bool
	}
	var routes []route
	if err := json.Unmarshal([]byte(got), &routes); status != 200 || err != nil || len(routes) != 2 {
		t.Fatalf("%d %v %s", status, err, got)
	}
	slices.SortFunc(routes, func(a, b route) int { return len(a.Hosts) - len(b.Hosts) })
	if r := routes[0]; r.Paths[0] != "/hidden" || r.Channels[0] != "default" || !r.Publish || !r.Subscribe || r.Compression || len(r.Warnings) != 1 {
		t.Errorf("%+v", r)
	}
	if r := routes[1]; !slices.Equal(r.Hosts, []string{"a.test", "*.b.test"}) || r.Paths[0] != "/chat/*" || r.Channels[0] != "room:{http.request.uri.path.1}" || r.Publish || !r.Compression ||
		!slices.Equal(r.Transports, []string{"websocket"}) || r.Warnings != nil {
		t.Errorf("%+v", r)
	}
}
