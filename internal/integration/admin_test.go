package integration

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
)

func TestAdmin(t *testing.T) {
	s := caddytest.Start(t, `broadcast /ws default news`)
	c := s.Dial("/ws", nil)
	id := regexp.MustCompile(`"id":"\w+-\d+"`)
	const lines = "application/x-ndjson"
	for _, v := range []struct {
		method, path, contentType, body string
		status                          int
		answer                          string
	}{
		{"POST", "/publish", "", "plain", 200, `{ID,"channel":"default","subscribers":1}`},
		{"POST", "/publish?channel=news&event=e", "text/plain", "to news", 200, `{ID,"channel":"news","subscribers":1}`},
		{"POST", "/publish?channel=nobody", "text/plain", "x", 200, `{ID,"channel":"nobody","subscribers":0}`},
		{"POST", "/publish", "application/octet-stream", "\xff", 200, `{ID,"channel":"default","subscribers":1}`},
		{"POST", "/publish", "text/plain", "\xff", 400, `not UTF-8`},
		{"POST", "/publish?channel=" + strings.Repeat("x", 256), "text/plain", "x", 400, `the channel has 256 bytes, more than 255`},
		{"POST", "/publish", "text/plain", strings.Repeat("x", 1<<20+1), 413, `larger than 1048576 bytes`},
		{"POST", "/publish", lines, `{"data":"one"}` + "\n\n" + `{"channel":"news","event":"e","data":{"a": 1}}` + "\r\n" + `{"data":"AP8=","encoding":"base64"}`, 200,
			`{ID,"channel":"default","subscribers":1}` + "\n" + `{ID,"channel":"news","subscribers":1}` + "\n" + `{ID,"channel":"default","subscribers":1}`},
		{"POST", "/publish", lines, `{"data":"by key","key":"k"}` + "\n" + `{"data":"by key","key":"k"}`, 200,
			`{ID,"channel":"default","subscribers":1}` + "\n" + `{ID,"channel":"default","subscribers":1}`},
		{"POST", "/publish", lines, `{"data":1,"key":"\u0000"}`, 400, `line 1: the key has a control character`},
		{"POST", "/publish", "application/x-www-form-urlencoded", "channel=news&data=by+form", 200, `{ID,"channel":"news","subscribers":1}`},
		{"POST", "/publish", lines, `{"data":"lost?"}` + "\n" + `{"data":}`, 400, `line 2: invalid character`},
		{"POST", "/publish", lines, `{"channel":"","data":1}`, 400, `line 1: the channel is empty`},
		{"POST", "/publish", lines, `{"text":1}`, 400, `line 1: json: unknown field`},
		{"POST", "/publish", lines, `{"channel":"a"}`, 400, `line 1: the message has no data`},
		{"POST", "/publish", lines, `{"data":1}{"data":2}`, 400, `line 1: there is more than one JSON value`},
		{"POST", "/publish", lines, `{"data":"?","encoding":"base64"}`, 400, `line 1: the data: illegal base64`},
		{"POST", "/publish", lines, `{"data":1,"encoding":"base64"}`, 400, `line 1: the data is not a string`},
		{"POST", "/publish", lines, `{"data":"x","encoding":"hex"}`, 400, `line 1: the encoding`},
		{"POST", "/publish", lines, "\n", 400, `the body has no lines`},
		{"GET", "/publish", "", "", 405, `method GET is not allowed, only POST`},
		{"POST", "", "", "", 405, `method POST is not allowed, only GET`},
	} {
		status, answer := s.Do(v.method, s.Admin+"/broadcast"+v.path, v.body, "Content-Type", v.contentType)
		if status != v.status {
			t.Errorf("%s %.40s %.60q: %d %q, not %d", v.method, v.path, v.body, status, answer, v.status)
			continue
		}
		if status == 200 {
			answer = id.ReplaceAllString(strings.TrimSpace(answer), "ID")
			if answer != v.answer {
				t.Errorf("%s %.40s %.60q: %q, not %q", v.method, v.path, v.body, answer, v.answer)
			}
			continue
		}
		var e struct{ Error string }
		if err := json.Unmarshal([]byte(answer), &e); err != nil || !strings.Contains(e.Error, v.answer) {
			t.Errorf("%s %.40s %.60q: %q, not %q", v.method, v.path, v.body, answer, v.answer)
		}
	}
	s.Expect(c, "plain", "to news", "\xff", "one", `{"a": 1}`, "\x00\xff", "by key", "by form")
}

// TestHandlersInFront: what other handlers do to a response is done to a handshake too.
// TestAdminLists: who is connected, on what, and how to part with them.
func TestAdminLists(t *testing.T) {
	s := caddytest.Start(t, `broadcast {
			history 2
		}
		---
		broadcast /ws/* news room:{path.1} {
			user {query.user}
		}`)
	url := s.Admin + "/broadcast"
	get := func(path string, v any) {
		t.Helper()
		status, body := s.Do("GET", url+path, "")
		if err := json.Unmarshal([]byte(body), v); status != 200 || err != nil {
			t.Fatalf("%s: %d %s", path, status, body)
		}
	}
	_, all := s.Stream("http://" + url + "/stream")
	_, some := s.Stream("http://"+url+"/stream?channel=news&channel=room:2&channel=news", "Last-Event-ID", "ignored? no: a gap")
	for _, next := range []func() string{all, some} {
		next()
		next()
	}
	ann := s.Dial("/ws/1?user=ann", nil)
	_, ben := s.Stream("http://" + s.Addr + "/ws/2?user=ben")
	ben()
	ben()
	s.Dial("/ws/2", nil)
	first := s.Publish("channel=news&event=e", "hello")
	second := s.Publish("channel=other", "x")
	s.Expect(ann, "hello")
	want := `{"id":"` + first + `","channel":"news","event":"e","data":"hello"}`
	if got := all(); got != "id: "+first+"\ndata: ["+want+"]\n" { // or both at once
		if got != "id: "+second+"\ndata: ["+want+`,{"id":"`+second+`","channel":"other","data":"x"}]`+"\n" {
			t.Errorf("the stream of all has %q", got)
		}
	} else if got := all(); !strings.Contains(got, `"channel":"other"`) {
		t.Errorf("the stream of all has %q", got)
	}
	if got := some(); got != "id: "+first+"\ndata: ["+want+"]\n" {
		t.Errorf("the stream of some has %q", got)
	}

	type channel struct {
		Channel              string
		Subscribers, History int
		LastID               string `json:"last_id"`
		Users                map[string]int
	}
	var channels []channel
	get("/channels", &channels)
	if got := fmt.Sprint(channels); got != fmt.Sprintf("[{news 4 1 %s map[]} {other 0 1 %s map[]} {room:1 1 0  map[]} {room:2 3 0  map[]}]", first, second) {
		t.Errorf("channels: %s", got)
	}
	channels = nil
	get("/channels?prefix=room:&limit=1", &channels)
	if got := fmt.Sprint(channels); got != "[{room:1 1 0  map[]}]" {
		t.Errorf("channels: %s", got)
	}
	channels = nil
	get("/channels?prefix=room:&after=room:1", &channels)
	if got := fmt.Sprint(channels); got != "[{room:2 3 0  map[]}]" {
		t.Errorf("channels: %s", got)
	}
	var one channel
	get("/channels/room:2", &one)
	if got := fmt.Sprint(one); got != "{room:2 3 0  map[ben:1]}" {
		t.Errorf("one channel: %s", got)
	}

	type connection struct {
		ID, User, Remote, Transport string
		Channels                    []string
		Since                       time.Time
		Sent, Backlog               int
	}
	list := func(query string) (text string, list []connection) {
		t.Helper()
		get("/connections"+query, &list)
		for _, c := range list {
			if c.Remote == "" || time.Since(c.Since) > time.Minute || time.Since(c.Since) < 0 {
				t.Errorf("%+v", c)
			}
			text += fmt.Sprintln(c.User, c.Transport, c.Channels)
		}
		return text, list
	}
	const annLine, benLine, nobody = "ann websocket [news room:1]\n", "ben sse [news room:2]\n", " websocket [news room:2]\n"
	got, cs := list("")
	if got != " admin [*]\n admin [news room:2]\n"+annLine+benLine+nobody || cs[2].Sent != len("hello")+2 {
		t.Errorf("connections: %s", got)
	}
	for query, want := range map[string]string{
		"?user=ann":                           annLine,
		"?channel=room:2&user=ben":            benLine,
		"?after=" + cs[2].ID:                  benLine + nobody,
		"?after=" + cs[1].ID + "&limit=2":     annLine + benLine,
		"?channel=nobody+is+here":             "",
		"?channel=room:2&after=" + cs[1].ID:   benLine + nobody,
		"?limit=1&user=ben&after=" + cs[4].ID: "",
	} {
		if got, _ := list(query); got != want {
			t.Errorf("%s: %s", query, got)
		}
	}
	resp, err := http.Get("http://" + url + "/connections?limit=2&channel=news")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if link := resp.Header.Get("Link"); link != `</broadcast/connections?after=`+cs[2].ID+`&channel=news&limit=2>; rel="next"` {
		t.Errorf("goes on at %s", link)
	}

	for _, c := range []struct {
		method, path string
		status       int
	}{
		{"GET", "/channels/nobody", 404},
		{"GET", "/channels?limit=0", 400},
		{"GET", "/connections?limit=x", 400},
		{"GET", "/connections?after=7", 400},
		{"POST", "/channels", 405},
		{"POST", "/connections", 405},
		{"GET", "/connections/c1", 405},
		{"DELETE", "/connections", 400},
		{"DELETE", "/connections/7", 400},
		{"DELETE", "/connections/c999", 404},
		{"DELETE", "/connections?user=nobody", 404},
		{"DELETE", "/connections/" + cs[2].ID, 200},
		{"DELETE", "/connections?user=ben", 200},
		{"GET", "/stream?channel=", 400},
		{"POST", "/stream", 405},
	} {
		if status, body := s.Do(c.method, url+c.path, ""); status != c.status {
			t.Errorf("%s %s: %d %s", c.method, c.path, status, body)
		}
	}
	s.ExpectClose(ann, websocket.StatusPolicyViolation)
	for ben() != "EOF" {
	}
	if got, _ := list("?after=" + cs[1].ID); got != nobody {
		t.Errorf("after the kicks: %s", got)
	}
}
