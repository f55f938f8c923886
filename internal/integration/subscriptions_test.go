package integration

import (
	"net/http"
	"strings"
	"testing"

	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
)

const annsRoom = `{"user":"ann","channel":"room:7"}`

// subscriptions asks for a change of subscriptions, and wants an answer with a text in it.
func (s v1Test) subscriptions(method, body string, status int, want string) {
	s.T.Helper()
	got, answer := s.Do(method, s.Admin+"/broadcast/subscriptions", body)
	if got != status || !strings.Contains(answer, want) {
		s.T.Fatalf("%s %s: %d %s, want %d %s", method, body, got, answer, status, want)
	}
}

// TestSubscriptions: a backend subscribes clients to channels and unsubscribes them. The answer to each says how many there were.
func TestSubscriptions(t *testing.T) {
	s := v1Test{caddytest.Start(t, `broadcast {
			history 100
		}
		---
		broadcast /ws news {
			user {query.me}
		}
		broadcast /write news {
			subscribe off
			user {query.me}
		}`), make(map[string]int)}
	ann := s.ann()
	raw := s.Dial("/ws?me=ann", nil)
	_, stream := s.Stream("http://" + s.Addr + "/ws?me=ann&protocol=broadcast.v1")
	_, plain := s.Stream("http://" + s.Addr + "/ws?me=ann")
	s.Dial("/write?me=ann", nil)
	ben := s.Dial("/ws?me=ben", nil)
	change := s.subscriptions

	s.talk(ann, `{"publish":{"channel":"room:7","data":1},"ref":1}`, `[{"error":{"ref":1,"code":"forbidden","message":"the client is not on the channel \"room:7\""}}]`)
	change("POST", annsRoom, 200, `{"subscribed":4}`)
	s.talk(ann, "", `[{"subscribed":{"channel":"room:7","id":"id0"}}]`)
	s.Publish("channel=room:7", "welcome")
	s.talk(ann, "", `[{"id":"id1","channel":"room:7","data":"welcome"}]`)
	s.Expect(raw, "welcome")
	// Who is on a channel may publish on it, where the route lets clients publish.
	s.talk(ann, `{"publish":{"channel":"room:7","data":"thanks"}}`, `[{"id":"id2","channel":"room:7","data":"thanks"}]`)
	s.Expect(raw, "thanks")

	change("DELETE", `{"connection":"c2","channel":"room:7"}`, 200, `{"unsubscribed":1}`)
	s.Publish("channel=room:7", "without raw")
	s.talk(ann, "", `[{"id":"id3","channel":"room:7","data":"without raw"}]`)
	change("DELETE", annsRoom, 200, `{"unsubscribed":3}`)
	s.talk(ann, "", `[{"unsubscribed":{"channel":"room:7"}}]`)
	change("DELETE", annsRoom, 404, "there is no such connection")
	change("POST", `{"user":"carl","channel":"room:7"}`, 404, "there is no such connection")
	s.Publish("channel=room:7", "to nobody")
	s.Publish("channel=news", "the end")
	s.talk(ann, "", `[{"id":"id4","channel":"news","data":"the end"}]`)
	s.Expect(raw, "the end")
	s.Expect(ben, "the end")
	expectInOrder(s, stream, "hello", `data: [{"subscribed":{"channel":"room:7","id":`, `"welcome"`, `"thanks"`, `"without raw"`,
		`data: [{"unsubscribed":{"channel":"room:7"}}]`, `"the end"`)
	expectInOrder(s, plain, "data: welcome", "thanks", "without raw", "the end")
}

// TestSubscriptionsRejected: the answer to what is no change of a subscription says why.
func TestSubscriptionsRejected(t *testing.T) {
	s := startV1(t)
	change := s.subscriptions
	for body, want := range map[string]string{
		``: "EOF", `[]`: "cannot unmarshal", annsRoom + annsRoom: "more than one", `{"user":"ann"}`: "the channel is empty",
		`{"channel":"room:7"}`:                                "neither a connection nor a user",
		`{"users":"ann","channel":"room:7"}`:                  "unknown field",
		`{"user":"","channel":"room:7"}`:                      "neither a connection nor a user",
		`{"connection":"7","channel":"room:7"}`:               "is not the ID",
		`{"user":"ann","channel":"a\u0000"}`:                  "control character",
		`{"user":"ann","connection":"c1","channel":"room:7"}`: "or both",
	} {
		change("POST", body, 400, want)
		change("DELETE", body, 400, want)
	}
	change("POST", strings.Repeat(" ", 9000)+annsRoom, 413, "larger than")
	change("GET", "", 405, "only POST, DELETE")
	if status, answer := s.Do("DELETE", s.Admin+"/broadcast/subscriptions?user=ann", annsRoom); status != 400 {
		t.Errorf("a query: %d %s", status, answer)
	}
}

// TestSubscriptionsReload: a client stays on the channels that a backend has subscribed it to while the configuration is reloaded, also if
// its route gives it others since.
func TestSubscriptionsReload(t *testing.T) {
	config := "broadcast /ws news {\nuser {query.me}\n}"
	s := caddytest.Start(t, config)
	ann := s.Dial("/ws?me=ann", nil)
	if status, answer := s.Do("POST", s.Admin+"/broadcast/subscriptions", `{"user":"ann","channel":"room:7"}`); status != 200 {
		t.Fatalf("%d %s", status, answer)
	}
	if err := s.Load(strings.Replace(config, "news", "other", 1)); err != nil {
		t.Fatal(err)
	}
	http.DefaultClient.CloseIdleConnections() // Caddy closes them too, and the test would not always notice in time
	s.Publish("channel=room:7", "to the room")
	s.Publish("channel=news", "to the route")
	s.Expect(ann, "to the room", "to the route")
	if status, answer := s.Do("DELETE", s.Admin+"/broadcast/subscriptions", `{"user":"ann","channel":"room:7"}`); status != 200 {
		t.Fatalf("%d %s", status, answer)
	}
}

// expectInOrder reads a stream until it has the last of the texts, and wants all of them, in order, and none of the others' text.
func expectInOrder(s v1Test, next func() string, texts ...string) {
	s.T.Helper()
	all := ""
	for last := texts[len(texts)-1]; !strings.Contains(all, last); {
		block := next()
		if block == "EOF" {
			s.T.Fatalf("the stream has ended: %q", all)
		}
		all += block
	}
	if strings.Contains(all, "to nobody") {
		s.T.Errorf("%q", all)
	}
	rest := all
	for _, want := range texts {
		_, after, ok := strings.Cut(rest, want)
		if !ok {
			s.T.Fatalf("no %s in %q", want, all)
		}
		rest = after
	}
}
