package integration

import (
	"bytes"
	"net"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
)

func TestEventStreams(t *testing.T) {
	_, port, _ := net.SplitHostPort(caddytest.FreeAddr(t))
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
	site, secure := "http://"+s.Addr, "https://localhost:"+port
	first := s.Publish("channel=news", "before")

	retry := regexp.MustCompile(`^retry: [1-5]\d\d\d\n$`)
	var streams []func() string
	for _, c := range []struct {
		url    string
		header []string
		major  int
	}{
		{site + "/events", nil, 1},
		{site + "/events", []string{"Accept-Encoding", "gzip"}, 1},
		{secure + "/events", nil, 2},
	} {
		resp, next := s.Stream(c.url, c.header...)
		h := resp.Header
		if resp.StatusCode != 200 || resp.ProtoMajor != c.major || h.Get("Content-Type") != "text/event-stream" || h.Get("Content-Encoding") != "" ||
			h.Get("Cache-Control") != "no-store, no-transform" || c.major == 1 && (h.Get("X-Early") != "yes" || h.Get("X-Late") != "yes") ||
			h.Get("Server") != "Caddy" || len(resp.TransferEncoding) > 0 {
			t.Errorf("%s: %s %v %v", c.url, resp.Proto, resp.Status, h)
		}
		if got := next(); !retry.MatchString(got) {
			t.Errorf("%s begins with %q", c.url, got)
		}
		if got := next(); got != "id: "+first+"\n" {
			t.Errorf("%s goes on with %q", c.url, got)
		}
		streams = append(streams, next)
	}
	second := s.Publish("channel=sport&event=goal", "one\ntwo")
	third := s.Publish("channel=news", "")
	s.Publish("channel=other", "")
	fourth := s.Publish("channel=news", strings.Repeat("x", 100_000))
	blocks := []string{
		"id: " + second + "\nevent: goal\ndata: one\ndata: two\n",
		"id: " + third + "\ndata: \n",
		"id: " + fourth + "\ndata: " + strings.Repeat("x", 100_000) + "\n",
	}
	for i, next := range streams {
		for _, want := range blocks {
			if got := next(); got != want {
				t.Fatalf("stream %d: got %.100q, not %.100q", i, got, want)
			}
		}
	}
	for _, c := range []struct {
		url    string
		header []string
		want   []string
	}{
		{site + "/events", []string{"Last-Event-ID", second}, append([]string{"id: " + second + "\n"}, blocks[1:]...)},
		{site + "/events?last_id=" + second, nil, blocks[1:]},
		{site + "/events?last_id=" + first, []string{"Last-Event-ID", third}, blocks[2:]},
		{site + "/events", []string{"Last-Event-ID", "nonsense"}, []string{"event: gap\nid: " + fourth + "\ndata: {\"channels\":[\"news\",\"sport\"],\"id\":\"" + fourth + "\"}\n"}},
		{secure + "/events", []string{"Last-Event-ID", first}, blocks},
		{site + "/last", nil, []string{blocks[1], blocks[2]}},
	} {
		_, next := s.Stream(c.url, c.header...)
		next() // retry
		for i, want := range c.want {
			got := next()
			if i == 0 && strings.HasPrefix(got, "id: ") && !strings.Contains(got, "data") && got != want {
				got = next() // the position
			}
			if got != want {
				t.Errorf("%s %q: got %.100q, not %.100q", c.url, c.header, got, want)
			}
		}
	}

	for _, c := range []struct {
		path, origin string
		status       int
		allow        string
		credentials  string
	}{
		{"/events", "", 200, "", ""},
		{"/events", site, 200, "", ""},
		{"/events", "https://app.example.com", 200, "https://app.example.com", "true"},
		{"/events", "https://evil.example", 403, "", ""},
		{"/any", "https://evil.example", 200, "*", ""},
		{"/publish", "", 403, "", ""},
		{"/sockets", "", 200, "", ""},
	} {
		var header []string
		if c.origin != "" {
			header = []string{"Origin", c.origin}
		}
		resp, next := s.Stream(site+c.path, header...)
		if resp.StatusCode != c.status || resp.Header.Get("Access-Control-Allow-Origin") != c.allow || resp.Header.Get("Access-Control-Allow-Credentials") != c.credentials {
			t.Errorf("%s from %q: %s %v", c.path, c.origin, resp.Status, resp.Header)
		}
		if c.path == "/sockets" && next() != "EOF" {
			t.Error("an event stream on a route without")
		}
		resp.Body.Close()
	}
	for origin, want := range map[string]int{"https://app.example.com": 204, "https://evil.example": 403} {
		if status, _ := s.Do("OPTIONS", s.Addr+"/events", "", "Origin", origin, "Access-Control-Request-Method", "POST"); status != want {
			t.Errorf("a preflight from %s: %d", origin, status)
		}
	}
	if status, body := s.Do("OPTIONS", s.Addr+"/events", ""); status != 200 || body != "next" {
		t.Errorf("OPTIONS: %d %s", status, body)
	}

	// Streams stay through a reload, and end with the hub.
	last := s.Publish("channel=news", "last")
	for i, next := range streams {
		if got := next(); got != "id: "+last+"\ndata: last\n" {
			t.Errorf("stream %d: %q", i, got)
		}
	}
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	for i, next := range streams {
		if got := next(); !retry.MatchString(got) {
			t.Errorf("stream %d ends with %q", i, got)
		}
		if got := next(); got != "EOF" {
			t.Errorf("stream %d: %q after its end", i, got)
		}
	}
	if log, _ := os.ReadFile(s.Log); bytes.Contains(log, []byte("panic")) || bytes.Contains(log, []byte("superfluous")) {
		t.Errorf("the log: %s", log)
	}
}
