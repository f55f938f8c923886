package integration

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
)

// TestKept: what is kept of which channel, as administrators read it and clients get it.
func TestKept(t *testing.T) {
	s := caddytest.Start(t, `
		broadcast {
			history room:* 3
			history cursor:* 0
			history 1
		}
		---
		broadcast /ws/* {path.1} {
			replay 100
		}`)
	for i := range 5 {
		for _, channel := range []string{"room:1", "cursor:1", "news"} {
			s.Publish("channel="+channel, fmt.Sprint(channel, " ", i))
			s.Publish("keep=0&channel="+channel, "not kept")
		}
	}
	s.Post(s.Admin+"/broadcast/publish", "application/x-ndjson", `{"channel":"room:1","data":{"a":1},"keep":false}`+"\n"+`{"channel":"room:1","data":{"a":2},"keep":true,"event":"e"}`)
	texts := func(query string) (texts []string) {
		status, body := s.Do("GET", s.Admin+"/broadcast/channels/"+query, "")
		var ms []struct {
			ID, Channel, Event, Time string
			Data                     json.RawMessage
		}
		if err := json.Unmarshal([]byte(body), &ms); err != nil || status != 200 {
			t.Fatal(status, body, err)
		}
		for _, m := range ms {
			texts = append(texts, m.Event+string(m.Data))
		}
		return texts
	}
	for query, want := range map[string]string{
		"room:1/messages":               `["room:1 3" "room:1 4" e{"a":2}]`,
		"room:1/messages?limit=2":       `["room:1 3" "room:1 4"]`,
		"room:1/messages?limit=1&last=": `[e{"a":2}]`,
		"news/messages":                 `["news 4"]`,
		"cursor:1/messages":             `[]`,
		"unknown/messages":              `[]`,
	} {
		if got := texts(query); fmt.Sprint(got) != want {
			t.Errorf("%s: %s, not %s", query, got, want)
		}
	}
	if status, body := s.Do("GET", s.Admin+"/broadcast/channels/room:1/messages?after=x-1", ""); status != 400 || !strings.Contains(body, "no ID") {
		t.Error(status, body)
	}
	const odd = `room:a b/50%"<>?x` // a channel may have any characters, and the next page's address none
	path := s.Admin + "/broadcast/channels/" + url.PathEscape(odd) + "/messages?limit=1"
	for range 2 {
		s.Publish("channel="+url.QueryEscape(odd), "x")
	}
	resp, err := http.Get("http://" + path)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	next, _, _ := strings.Cut(strings.TrimPrefix(resp.Header.Get("Link"), "<"), ">")
	if u, err := url.Parse(next); err != nil || u.Path != "/broadcast/channels/"+odd+"/messages" || !u.Query().Has("after") {
		t.Errorf("%q: %v", resp.Header.Get("Link"), err)
	}
	s.Expect(s.Dial("/ws/room:1", nil), "room:1 3", "room:1 4", `{"a":2}`)
	cursor := s.Dial("/ws/cursor:1", nil)
	s.Publish("keep=0&channel=cursor:1", "moves")
	s.Expect(cursor, "moves")
}
