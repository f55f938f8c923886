package integration

import (
	"regexp"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
)

// eventStreams is a server with routes for event streams, on HTTP/1.1 and, secure, on HTTP/2.
type eventStreams struct {
	*caddytest.Server
	site, secure string // URLs
}

func startEventStreams(t *testing.T) eventStreams {
	port := caddytest.FreePort(t)
	s := caddytest.Start(t, `broadcast {
			history 100
		}
		auto_https off
		---
		log
		encode
		header X-Early yes
		header >X-Late yes
		broadcast /events news sport {
			origins https://app.example.com
		}
		broadcast /last news {
			replay 2
		}
		broadcast /any {
			origins *
		}
		broadcast /publish {
			subscribe off
		}
		broadcast /sockets {
			transports websocket post
		}
		respond next
	}
	https://localhost:`+port+` {
		`+caddytest.Certificate(t)+`
		broadcast /events news sport`)
	return eventStreams{s, "http://" + s.Addr, "https://localhost:" + port}
}

// publishAll publishes what streams of news and sport show, and returns the IDs, and the blocks as streams show them.
func (s eventStreams) publishAll() (ids, blocks []string) {
	s.T.Helper()
	large := strings.Repeat("x", 100_000)
	second := s.Publish("channel=sport&event=goal", "one\ntwo")
	third := s.Publish("channel=news", "")
	s.Publish("channel=other", "")
	fourth := s.Publish("channel=news", large)
	return []string{second, third, fourth}, []string{
		"id: " + second + "\nevent: goal\ndata: one\ndata: two\n",
		"id: " + third + "\ndata: \n",
		"id: " + fourth + "\ndata: " + large + "\n",
	}
}

// retry is the block with which a stream begins, and ends if the server is stopped.
var retry = regexp.MustCompile(`^retry: [1-5]\d\d\d\n$`)

// TestEventStreams: what a stream shows from its beginning to its end.
func TestEventStreams(t *testing.T) {
	s := startEventStreams(t)
	first := s.Publish("channel=news", "before")
	rows := []struct {
		name, url string
		header    []string
		major     int
	}{
		{"HTTP 1", s.site + "/events", nil, 1},
		{"HTTP 1 with gzip", s.site + "/events", []string{"Accept-Encoding", "gzip"}, 1},
		{"HTTP 2", s.secure + "/events", nil, 2},
	}
	var streams []func() string
	for _, c := range rows {
		resp, next := s.Stream(c.url, c.header...)
		streams = append(streams, next)
		begin, position := next(), next()
		t.Run(c.name+" begins", func(t *testing.T) {
			h := resp.Header
			if resp.StatusCode != 200 || resp.ProtoMajor != c.major || h.Get("Content-Type") != "text/event-stream" || h.Get("Content-Encoding") != "" ||
				h.Get("Cache-Control") != "no-store, no-transform" || c.major == 1 && (h.Get("X-Early") != "yes" || h.Get("X-Late") != "yes") ||
				h.Get("Server") != "Caddy" || len(resp.TransferEncoding) > 0 {
				t.Errorf("%s %v %v", resp.Proto, resp.Status, h)
			}
			if !retry.MatchString(begin) {
				t.Errorf("begins with %q", begin)
			}
			if position != "id: "+first+"\n" {
				t.Errorf("goes on with %q", position)
			}
		})
	}
	_, blocks := s.publishAll()
	last := s.Publish("channel=news", "last")
	blocks = append(blocks, "id: "+last+"\ndata: last\n")
	for i, c := range rows {
		for _, want := range blocks {
			if got := streams[i](); got != want {
				t.Fatalf("%s: got %.100q, not %.100q", c.name, got, want)
			}
		}
	}
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	for i, c := range rows {
		t.Run(c.name+" ends", func(t *testing.T) {
			if got := streams[i](); !retry.MatchString(got) {
				t.Errorf("ends with %q", got)
			}
			if got := streams[i](); got != "EOF" {
				t.Errorf("%q after its end", got)
			}
		})
	}
	expectCleanLog(s.Server)
}

// TestResumedEventStreams: a client that says what it had last gets what came after.
func TestResumedEventStreams(t *testing.T) {
	s := startEventStreams(t)
	first := s.Publish("channel=news", "before")
	ids, blocks := s.publishAll()
	second, third, fourth := ids[0], ids[1], ids[2]
	gap := "event: gap\nid: " + fourth + "\ndata: {\"channels\":[\"news\",\"sport\"],\"id\":\"" + fourth + "\"}\n"
	for _, c := range []struct {
		name, url string
		header    []string
		want      []string
	}{
		{"header", s.site + "/events", []string{"Last-Event-ID", second}, append([]string{"id: " + second + "\n"}, blocks[1:]...)},
		{"query", s.site + "/events?last_id=" + second, nil, blocks[1:]},
		{"header and query", s.site + "/events?last_id=" + first, []string{"Last-Event-ID", third}, blocks[2:]},
		{"unknown ID", s.site + "/events", []string{"Last-Event-ID", "nonsense"}, []string{gap}},
		{"HTTP 2", s.secure + "/events", []string{"Last-Event-ID", first}, blocks},
		{"replay without an ID", s.site + "/last", nil, []string{blocks[1], blocks[2]}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, next := s.Server.In(t).Stream(c.url, c.header...)
			next() // retry
			for i, want := range c.want {
				got := next()
				if i == 0 && strings.HasPrefix(got, "id: ") && !strings.Contains(got, "data") && got != want {
					got = next() // the position
				}
				if got != want {
					t.Errorf("got %.100q, not %.100q", got, want)
				}
			}
		})
	}
	expectCleanLog(s.Server)
}

// TestEventStreamOrigins: which pages may read a stream, and which routes have none.
func TestEventStreamOrigins(t *testing.T) {
	s := startEventStreams(t)
	for _, c := range []struct {
		name, path, origin string
		status             int
		allow, credentials string
	}{
		{"no page", "/events", "", 200, "", ""},
		{"own page", "/events", s.site, 200, "", ""},
		{"page of a listed site", "/events", "https://app.example.com", 200, "https://app.example.com", "true"},
		{"page of another site", "/events", "https://evil.example", 403, "", ""},
		{"any page", "/any", "https://evil.example", 200, "*", ""},
		{"subscribing off", "/publish", "", 403, "", ""},
		{"no event streams", "/sockets", "", 200, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			var header []string
			if c.origin != "" {
				header = []string{"Origin", c.origin}
			}
			resp, next := s.Server.In(t).Stream(s.site+c.path, header...)
			if resp.StatusCode != c.status || resp.Header.Get("Access-Control-Allow-Origin") != c.allow || resp.Header.Get("Access-Control-Allow-Credentials") != c.credentials {
				t.Errorf("%s %v", resp.Status, resp.Header)
			}
			if c.path == "/sockets" && next() != "EOF" {
				t.Error("an event stream on a route without")
			}
		})
	}
	for _, c := range []struct {
		name, origin string
		status       int
	}{
		{"preflight of a listed site", "https://app.example.com", 204},
		{"preflight of another site", "https://evil.example", 403},
	} {
		t.Run(c.name, func(t *testing.T) {
			status, _ := s.Server.In(t).Do("OPTIONS", s.Addr+"/events", "", "Origin", c.origin, "Access-Control-Request-Method", "POST")
			if status != c.status {
				t.Errorf("%d", status)
			}
		})
	}
	t.Run("OPTIONS without a page", func(t *testing.T) {
		if status, body := s.Server.In(t).Do("OPTIONS", s.Addr+"/events", ""); status != 200 || body != "next" {
			t.Errorf("%d %s", status, body)
		}
	})
	expectCleanLog(s.Server)
}
