package integration

import (
	"io"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/coder/websocket"

	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
)

// TestReasons: whoever is refused is told why, in one line.
func TestReasons(t *testing.T) {
	s := caddytest.Start(t, `broadcast /ws news {
			max_message 10
			rate 3/h
		}
		broadcast /quiet {
			publish off
		}
		broadcast /deaf {
			subscribe off
		}
		broadcast /empty {query.channel}
		broadcast /one one {
			max_connections 1
		}
		error /failing "of another handler" 404`)
	s.Dial("/one", nil)
	for _, r := range refusals() {
		t.Run(r.name, func(t *testing.T) { testRefusal(s.In(t), r) })
	}
	t.Run("in the log", func(t *testing.T) {
		s := s.In(t)
		s.Post(s.Addr+"/quiet", "text/plain", "x")
		s.WaitLog("publishing is off on this route")
	})
}

// refusal is a request that is refused, and the reason that its answer has; if there is none, it is not ours.
type refusal struct {
	name, method, path, body string
	header                   []string
	status                   int
	want                     string
}

func refusals() []refusal {
	text := []string{"Content-Type", "text/plain"}
	stream := []string{"Accept", "text/event-stream"}
	handshake := []string{"Connection", "Upgrade", "Upgrade", "websocket", "Sec-Websocket-Version", "13", "Sec-Websocket-Key", "AAAAAAAAAAAAAAAAAAAAAA=="}
	with := func(a []string, more ...string) []string { return append(a[:len(a):len(a)], more...) }
	return []refusal{
		{"POST, publishing off", "POST", "/quiet", "x", text, 403, "publishing is off on this route"},
		{"POST, too large", "POST", "/ws", "more than ten", text, 413, "the body is larger than 10 bytes"},
		{"POST, another channel", "POST", "/ws?channel=other", "x", text, 403, `"other" is not a channel of this route`},
		{"POST, too fast", "POST", "/ws", "x", text, 429, "the client publishes faster than the option rate lets it"},
		{"POST, no channel", "POST", "/empty", "x", text, 400, `the channel "{http.request.uri.query.channel}" `},
		{"POST from another site", "POST", "/ws", "x", with(text, "Origin", "https://evil.org"), 403, `a page of origin "https://evil.org"`},
		{"stream, subscribing off", "GET", "/deaf", "", stream, 403, "subscribing is off on this route"},
		{"stream for another site", "GET", "/ws", "", with(stream, "Sec-Fetch-Site", "cross-site"), 403, "a page of another site"},
		{"stream, too many", "GET", "/one", "", stream, 503, "too many connections"},
		{"handshake, too many", "GET", "/one", "", handshake, 503, "too many connections"},
		{"handshake from another site", "GET", "/ws", "", with(handshake, "Origin", "https://evil.org"), 403, `a page of origin "https://evil.org"`},
		{"handshake, wrong version", "GET", "/ws", "", with(handshake, "Sec-Websocket-Version", "12"), 400, "version"},
		{"the next handler's", "GET", "/failing", "", nil, 404, ""},
	}
}

// testRefusal: the answer is one line of text with the reason.
func testRefusal(s *caddytest.Server, r refusal) {
	if r.status == 429 {
		for range 3 {
			s.Post(s.Addr+"/ws", "text/plain", "x")
		}
	}
	req, _ := http.NewRequest(r.method, "http://"+s.Addr+r.path, strings.NewReader(r.body))
	for i := 0; i < len(r.header); i += 2 {
		req.Header.Set(r.header[i], r.header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		s.T.Fatal(err)
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	if resp.StatusCode != r.status || !strings.Contains(string(body), r.want) || (r.want == "") != (len(body) == 0) {
		s.T.Errorf("%s %q", resp.Status, body)
	}
	if r.want == "" {
		return
	}
	if strings.Count(string(body), "\n") != 1 || !strings.HasSuffix(string(body), "\n") {
		s.T.Errorf("not one line: %q", body)
	}
	if got := resp.Header.Get("Content-Type"); got != "text/plain; charset=utf-8" {
		s.T.Errorf("Content-Type: %s", got)
	}
}

// TestHandleErrors: where the site has handle_errors, that decides what a refusal looks like.
func TestHandleErrors(t *testing.T) {
	s := caddytest.Start(t, `handle /nested/* {
			route {
				broadcast {
					publish off
				}
			}
		}
		broadcast /empty {query.channel}
		handle_errors 403 {
			respond "{err.status_code} {err.message} by the site"
		}`)
	for path, want := range map[string]string{
		"/nested/x": "403 publishing is off on this route by the site",
		"/empty":    "the channel \"{http.request.uri.query.channel}\" is empty\n", // handle_errors is for 403
	} {
		if status, body := s.Post(s.Addr+path, "text/plain", "x"); status < 400 || body != want {
			t.Errorf("%s: %d %q", path, status, body)
		}
	}
}

// TestNestedErrorRoutes: in JSON, subroutes can have error routes of their own.
func TestNestedErrorRoutes(t *testing.T) {
	s := caddytest.Start(t, "respond hi")
	route := `{"handle":[{"handler":"broadcast","publish":false}]}`
	config := `{"admin":{"listen":"` + s.Admin + `","config":{"persist":false}},"apps":{"http":{"servers":{"x":{"listen":["` + s.Addr + `"],
		"automatic_https":{"disable":true},"routes":[
		{"match":[{"path":["/handled"]}],"handle":[{"handler":"subroute","routes":[` + route + `],
			"errors":{"routes":[{"handle":[{"handler":"static_response","body":"by the subroute"}]}]}}]},
		{"match":[{"path":["/other"]}],"handle":[{"handler":"subroute","routes":[` + route + `],
			"errors":{"routes":[{"match":[{"path":["/never"]}],"handle":[{"handler":"static_response","body":"by the subroute"}]}]}}]},
		{"match":[{"path":["/named"]}],"handle":[{"handler":"invoke","name":"n"}]},
		{"match":[{"path":["/again"]}],"handle":[{"handler":"invoke","name":"again"}]}
		],"named_routes":{"n":` + route + `,"again":{"handle":[{"handler":"subroute","routes":[{"match":[{"path":["/never"]}],"handle":[{"handler":"invoke","name":"again"}]}]}]}}}}}}}`
	if err := caddy.Load([]byte(config), true); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{"/handled": "by the subroute", "/other": "publishing is off on this route\n", "/named": "publishing is off on this route\n"} {
		if status, body := s.Post(s.Addr+path, "text/plain", "x"); body != want {
			t.Errorf("%s: %d %q", path, status, body)
		}
	}
}

// TestHostChanged: behind a proxy that changes Host, what the browser says of itself is believed, and the log tells how to
// mend the rest.
func TestHostChanged(t *testing.T) {
	s := caddytest.Start(t, `broadcast /ws behind_proxy`)
	if status, body := s.Post(s.Addr+"/ws", "text/plain", "x", "Origin", "https://front.org", "Sec-Fetch-Site", "same-origin"); status != 200 {
		t.Errorf("its own page: %d %s", status, body)
	}
	s.WaitLog("a proxy in front seems to change the Host header")
	_, resp, err := websocket.Dial(t.Context(), "ws://"+s.Addr+"/ws", &websocket.DialOptions{
		HTTPHeader: http.Header{"Origin": {"https://front.org"}, "X-Forwarded-Host": {"front.org"}},
	})
	if err == nil || resp.StatusCode != 403 {
		t.Errorf("a handshake that could be any page's: %v %v", resp, err)
	}
}

// TestProxyNotTrusted: where addresses count, the log warns of a proxy in front whose clients would all be one, and of nothing else.
func TestProxyNotTrusted(t *testing.T) {
	const trusting = "servers {\n trusted_proxies static 127.0.0.1\n}\n---\n"
	const perIP, rate = " {\n max_connections 5 per_ip 2\n}", " {\n rate 100/m\n}"
	for _, c := range []struct {
		name, config string
		header       []string
		warnings     int
	}{
		{"per_ip", "broadcast /ws CHANNEL" + perIP, []string{"X-Forwarded-For", "192.0.2.1"}, 1},
		{"rate", "broadcast /ws CHANNEL" + rate, []string{"X-Forwarded-For", "192.0.2.1"}, 1},
		{"no limit", "broadcast /ws CHANNEL", []string{"X-Forwarded-For", "192.0.2.1"}, 0},
		{"no proxy", "broadcast /ws CHANNEL" + perIP, nil, 0},
		{"trusted", trusting + "broadcast /ws CHANNEL" + perIP, []string{"X-Forwarded-For", "192.0.2.1"}, 0},
		{"rate, trusted", trusting + "broadcast /ws CHANNEL" + rate, []string{"X-Forwarded-For", "192.0.2.1"}, 0},
		{"rate of users", "broadcast /ws CHANNEL {\n rate 100/m\n user ann\n}", []string{"X-Forwarded-For", "192.0.2.1"}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			// A process warns of a route once, and a route is known by its channels.
			s := caddytest.Start(t, strings.ReplaceAll(c.config, "CHANNEL", "proxy"+caddytest.FreePort(t)))
			for range 2 {
				if status, body := s.Post(s.Addr+"/ws", "text/plain", "x", c.header...); status != 200 {
					t.Fatal(status, body)
				}
				s.Stream("http://"+s.Addr+"/ws", c.header...)
			}
			log, err := os.ReadFile(s.Log) // written before the response
			if n := strings.Count(string(log), "a proxy in front is not trusted"); err != nil || n > 2*c.warnings || n < c.warnings {
				t.Errorf("%d warnings, %v", n, err)
			}
		})
	}
}

// TestNoPage: who opens a route's address, with nothing there to see, is told what the address is for. A page that is there, the
// site's own errors, and other methods are left alone.
func TestNoPage(t *testing.T) {
	root := t.TempDir()
	if err := os.WriteFile(root+"/page", []byte("the page"), 0o644); err != nil {
		t.Fatal(err)
	}
	s := caddytest.Start(t, `root `+root+`
		handle /ws {
			broadcast
		}
		handle /streams {
			broadcast {
				transports sse post
			}
		}
		handle /posts {
			broadcast {
				transports post
			}
		}
		handle /empty {
			broadcast
			respond 204
		}
		handle {
			broadcast /page
			broadcast /missing
			file_server
		}`)
	const all = "there is no page at this address: it is a route of broadcast, and accepts WebSockets, event streams (Accept: text/event-stream), POSTs\n"
	for _, c := range []struct {
		method, path string
		status       int
		want         string
	}{
		{"GET", "/ws", 426, all},
		{"HEAD", "/ws", 426, ""},
		{"PUT", "/ws", 200, ""},
		{"GET", "/streams", 406, "there is no page at this address: it is a route of broadcast, and accepts event streams (Accept: text/event-stream), POSTs\n"},
		{"GET", "/posts", 405, "there is no page at this address: it is a route of broadcast, and accepts POSTs\n"},
		{"GET", "/empty", 204, ""},
		{"GET", "/page", 200, "the page"},
		{"GET", "/missing", 404, all},
		{"GET", "/other", 404, ""},
	} {
		if status, body := s.Do(c.method, s.Addr+c.path, ""); status != c.status || body != c.want {
			t.Errorf("%s %s: %d %q", c.method, c.path, status, body)
		}
	}
	if err := s.Load("broadcast /ws\nroot " + root + "\nfile_server\nhandle_errors 404 {\nrespond \"the site's {err.status_code}\"\n}"); err != nil {
		t.Fatal(err)
	}
	if status, body := s.Do("GET", s.Addr+"/ws", ""); status != 404 || body != "the site's 404" {
		t.Errorf("with handle_errors: %d %q", status, body)
	}
}
