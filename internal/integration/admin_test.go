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

// adminRequest is a request to the admin API, and its answer: of an error a part, of others all, with ID for IDs.
type adminRequest struct {
	name, method, path, contentType, body string
	status                                int
	answer                                string
	heard                                 []string // what a subscriber of default and news gets
}

const ndjson = "application/x-ndjson"

var adminRequests = []adminRequest{
	{"a plain message", "POST", "/publish", "", "plain", 200, `{ID,"channel":"default","subscribers":1}`, []string{"plain"}},
	{"to a channel, with an event", "POST", "/publish?channel=news&event=e", "text/plain", "to news", 200, `{ID,"channel":"news","subscribers":1}`, []string{"to news"}},
	{"to a channel that nobody is on", "POST", "/publish?channel=nobody", "text/plain", "x", 200, `{ID,"channel":"nobody","subscribers":0}`, nil},
	{"binary", "POST", "/publish", "application/octet-stream", "\xff", 200, `{ID,"channel":"default","subscribers":1}`, []string{"\xff"}},
	{"not UTF-8", "POST", "/publish", "text/plain", "\xff", 400, `not UTF-8`, nil},
	{"a channel name too long", "POST", "/publish?channel=" + strings.Repeat("x", 256), "text/plain", "x", 400, `the channel has 256 bytes, more than 255`, nil},
	{"a message too large", "POST", "/publish", "text/plain", strings.Repeat("x", 1<<20+1), 413, `larger than 1048576 bytes`, nil},
	{"several lines", "POST", "/publish", ndjson, `{"data":"one"}` + "\n\n" + `{"channel":"news","event":"e","data":{"a": 1}}` + "\r\n" + `{"data":"AP8=","encoding":"base64"}`, 200,
		`{ID,"channel":"default","subscribers":1}` + "\n" + `{ID,"channel":"news","subscribers":1}` + "\n" + `{ID,"channel":"default","subscribers":1}`, []string{"one", `{"a": 1}`, "\x00\xff"}},
	{"the same key twice", "POST", "/publish", ndjson, `{"data":"by key","key":"k"}` + "\n" + `{"data":"by key","key":"k"}`, 200,
		`{ID,"channel":"default","subscribers":1}` + "\n" + `{ID,"channel":"default","subscribers":1}`, []string{"by key"}},
	{"a key with a control character", "POST", "/publish", ndjson, `{"data":1,"key":"\u0000"}`, 400, `line 1: the key has a control character`, nil},
	{"a form", "POST", "/publish", "application/x-www-form-urlencoded", "channel=news&data=by+form", 200, `{ID,"channel":"news","subscribers":1}`, []string{"by form"}},
	{"a line that is wrong after one that is not", "POST", "/publish", ndjson, `{"data":"lost?"}` + "\n" + `{"data":}`, 400, `line 2: invalid character`, nil},
	{"a line with an empty channel", "POST", "/publish", ndjson, `{"channel":"","data":1}`, 400, `line 1: the channel is empty`, nil},
	{"a line with an unknown field", "POST", "/publish", ndjson, `{"text":1}`, 400, `line 1: json: unknown field`, nil},
	{"a line without data", "POST", "/publish", ndjson, `{"channel":"a"}`, 400, `line 1: the message has no data`, nil},
	{"two values on a line", "POST", "/publish", ndjson, `{"data":1}{"data":2}`, 400, `line 1: there is more than one JSON value`, nil},
	{"data that is not base64", "POST", "/publish", ndjson, `{"data":"?","encoding":"base64"}`, 400, `line 1: the data: illegal base64`, nil},
	{"base64 that is not a string", "POST", "/publish", ndjson, `{"data":1,"encoding":"base64"}`, 400, `line 1: the data is not a string`, nil},
	{"an unknown encoding", "POST", "/publish", ndjson, `{"data":"x","encoding":"hex"}`, 400, `line 1: the encoding`, nil},
	{"no lines", "POST", "/publish", ndjson, "\n", 400, `the body has no lines`, nil},
	{"GET", "GET", "/publish", "", "", 405, `method GET is not allowed, only POST`, nil},
	{"POST to the totals", "POST", "", "", "", 405, `method POST is not allowed, only GET`, nil},
}

// TestAdmin: what is published through the admin API, and what is refused.
func TestAdmin(t *testing.T) {
	s := caddytest.Start(t, `broadcast /ws default news`)
	c := s.Dial("/ws", nil)
	for _, r := range adminRequests {
		t.Run(r.name, func(t *testing.T) {
			s := s.In(t)
			expectAdminAnswer(s, r)
			s.Expect(c, r.heard...)
		})
	}
	s.Publish("channel=news", "the end")
	s.Expect(c, "the end")
}

func expectAdminAnswer(s *caddytest.Server, r adminRequest) {
	s.T.Helper()
	status, answer := s.Do(r.method, s.Admin+"/broadcast"+r.path, r.body, "Content-Type", r.contentType)
	if status != r.status {
		s.T.Fatalf("%d %q, not %d", status, answer, r.status)
	}
	if status == 200 {
		answer = regexp.MustCompile(`"id":"\w+-\d+"`).ReplaceAllString(strings.TrimSpace(answer), "ID")
		if answer != r.answer {
			s.T.Errorf("%q, not %q", answer, r.answer)
		}
		return
	}
	var e struct{ Error string }
	if err := json.Unmarshal([]byte(answer), &e); err != nil || !strings.Contains(e.Error, r.answer) {
		s.T.Errorf("%q, not %q", answer, r.answer)
	}
}

// adminLists is a server with connections of every kind.
type adminLists struct {
	*caddytest.Server
	all, some     func() string   // admin streams: of all channels, and of news and room:2
	ann           *websocket.Conn // a WebSocket on news and room:1
	ben           func() string   // an event stream on news and room:2
	first, second string          // the IDs of a message on news that ann has read, and of one on other
	ids           []string        // of the connections: all, some, ann, ben, and one without a user on news and room:2
}

func startAdminLists(t *testing.T) *adminLists {
	s := &adminLists{Server: caddytest.Start(t, `broadcast {
			history 2
		}
		---
		broadcast /ws/* news room:{path.1} {
			user {query.user}
		}`)}
	url := "http://" + s.Admin + "/broadcast/stream"
	_, s.all = s.Stream(url)
	_, s.some = s.Stream(url+"?channel=news&channel=room:2&channel=news", "Last-Event-ID", "ignored? no: a gap")
	for _, next := range []func() string{s.all, s.some} {
		next()
		next()
	}
	s.ann = s.Dial("/ws/1?user=ann", nil)
	_, s.ben = s.Stream("http://" + s.Addr + "/ws/2?user=ben")
	s.ben()
	s.ben()
	s.Dial("/ws/2", nil)
	s.first = s.Publish("channel=news&event=e", "hello")
	s.second = s.Publish("channel=other", "x")
	s.Expect(s.ann, "hello")
	_, list := s.connections("")
	if len(list) != 5 {
		t.Fatalf("connections: %+v", list)
	}
	for _, c := range list {
		s.ids = append(s.ids, c.ID)
	}
	return s
}

// get gets and parses what is at a path of the admin API.
func (s *adminLists) get(path string, v any) {
	s.T.Helper()
	status, body := s.Do("GET", s.Admin+"/broadcast"+path, "")
	if err := json.Unmarshal([]byte(body), v); status != 200 || err != nil {
		s.T.Fatalf("%s: %d %s", path, status, body)
	}
}

// listed is what the admin API tells of a connection.
type listed struct {
	ID, User, Remote, Transport string
	Channels                    []string
	Since                       time.Time
	Sent, Backlog               int
}

// The lines that connections makes of those on a route.
const annLine, benLine, nobody = "ann websocket [news room:1]\n", "ben sse [news room:2]\n", " websocket [news room:2]\n"

// connections gets a list of connections, and makes a line of each.
func (s *adminLists) connections(query string) (text string, list []listed) {
	s.T.Helper()
	s.get("/connections"+query, &list)
	for _, c := range list {
		if c.Remote == "" || time.Since(c.Since) > time.Minute || time.Since(c.Since) < 0 {
			s.T.Errorf("%+v", c)
		}
		text += fmt.Sprintln(c.User, c.Transport, c.Channels)
	}
	return text, list
}

// run runs a subtest. What fails or is opened in it belongs to the subtest, not to its parent.
func (s *adminLists) run(name string, test func(*adminLists)) {
	s.T.(*testing.T).Run(name, func(t *testing.T) {
		own := *s
		own.Server = s.Server.In(t)
		test(&own)
	})
}

// TestAdminLists: who is connected, on what, and how to part with them.
func TestAdminLists(t *testing.T) {
	s := startAdminLists(t)
	s.run("streams", (*adminLists).testStreams)
	s.run("channels", (*adminLists).testChannels)
	s.run("connections", (*adminLists).testConnections)
	s.run("refusals", (*adminLists).testRefusals)
	s.run("kicks", (*adminLists).testKicks) // the last: those who are kicked are on the lists
}

// testStreams: the admin streams show messages in JSON.
func (s *adminLists) testStreams() {
	want := `{"id":"` + s.first + `","channel":"news","event":"e","data":"hello"}`
	s.run("of all", func(s *adminLists) {
		if got := s.all(); got != "id: "+s.first+"\ndata: ["+want+"]\n" { // or both at once
			if got != "id: "+s.second+"\ndata: ["+want+`,{"id":"`+s.second+`","channel":"other","data":"x"}]`+"\n" {
				s.T.Errorf("%q", got)
			}
		} else if got := s.all(); !strings.Contains(got, `"channel":"other"`) {
			s.T.Errorf("%q", got)
		}
	})
	s.run("of some", func(s *adminLists) {
		if got := s.some(); got != "id: "+s.first+"\ndata: ["+want+"]\n" {
			s.T.Errorf("%q", got)
		}
	})
}

func (s *adminLists) testChannels() {
	type channel struct {
		Channel              string
		Subscribers, History int
		LastID               string `json:"last_id"`
		Users                map[string]int
	}
	all := fmt.Sprintf("[{news 4 1 %s map[]} {other 0 1 %s map[]} {room:1 1 0  map[]} {room:2 3 0  map[]}]", s.first, s.second)
	for _, c := range []struct{ name, query, want string }{
		{"all", "", all},
		{"the first with a prefix", "?prefix=room:&limit=1", "[{room:1 1 0  map[]}]"},
		{"those after it", "?prefix=room:&after=room:1", "[{room:2 3 0  map[]}]"},
	} {
		s.run(c.name, func(s *adminLists) {
			var channels []channel
			s.get("/channels"+c.query, &channels)
			if got := fmt.Sprint(channels); got != c.want {
				s.T.Errorf("%s", got)
			}
		})
	}
	s.run("one", func(s *adminLists) {
		var one channel
		s.get("/channels/room:2", &one)
		if got := fmt.Sprint(one); got != "{room:2 3 0  map[ben:1]}" {
			s.T.Errorf("%s", got)
		}
	})
}

func (s *adminLists) testConnections() {
	s.run("all", func(s *adminLists) {
		got, list := s.connections("")
		if got != " admin [*]\n admin [news room:2]\n"+annLine+benLine+nobody || list[2].Sent != len("hello")+2 {
			s.T.Errorf("%s", got)
		}
	})
	s.run("how many", func(s *adminLists) {
		var v struct{ Connections, Clients int }
		if s.get("", &v); v.Connections != 5 || v.Clients != 3 {
			s.T.Errorf("%+v", v)
		}
	})
	for _, c := range []struct{ name, query, want string }{
		{"without streams of the admin API", "?clients", annLine + benLine + nobody},
		{"one without streams of the admin API", "?clients&limit=1", annLine},
		{"of a user", "?user=ann", annLine},
		{"of a channel and a user", "?channel=room:2&user=ben", benLine},
		{"after one", "?after=" + s.ids[2], benLine + nobody},
		{"two after one", "?after=" + s.ids[1] + "&limit=2", annLine + benLine},
		{"of a channel without any", "?channel=nobody+is+here", ""},
		{"of a channel after one", "?channel=room:2&after=" + s.ids[1], benLine + nobody},
		{"of a user after the last", "?limit=1&user=ben&after=" + s.ids[4], ""},
	} {
		s.run(c.name, func(s *adminLists) {
			if got, _ := s.connections(c.query); got != c.want {
				s.T.Errorf("%s: %s", c.query, got)
			}
		})
	}
	s.run("link to the next page", func(s *adminLists) {
		resp, err := http.Get("http://" + s.Admin + "/broadcast/connections?limit=2&channel=news")
		if err != nil {
			s.T.Fatal(err)
		}
		resp.Body.Close()
		if link := resp.Header.Get("Link"); link != `</broadcast/connections?after=`+s.ids[2]+`&channel=news&limit=2>; rel="next"` {
			s.T.Errorf("goes on at %s", link)
		}
	})
}

func (s *adminLists) testRefusals() {
	for _, c := range []struct {
		name, method, path string
		status             int
	}{
		{"a channel that is not there", "GET", "/channels/nobody", 404},
		{"a limit of zero", "GET", "/channels?limit=0", 400},
		{"a limit that is no number", "GET", "/connections?limit=x", 400},
		{"after what is no connection", "GET", "/connections?after=7", 400},
		{"POST to the channels", "POST", "/channels", 405},
		{"POST to the connections", "POST", "/connections", 405},
		{"GET of one connection", "GET", "/connections/c1", 405},
		{"DELETE of all", "DELETE", "/connections", 400},
		{"DELETE of no ID", "DELETE", "/connections/", 400},
		{"DELETE of no ID, and a user", "DELETE", "/connections/?user=ann", 400},
		{"DELETE of what is no connection", "DELETE", "/connections/7", 400},
		{"DELETE of a connection that is not there", "DELETE", "/connections/c999", 404},
		{"DELETE of a user who is not there", "DELETE", "/connections?user=nobody", 404},
		{"a stream of an empty channel", "GET", "/stream?channel=", 400},
		{"POST to a stream", "POST", "/stream", 405},
	} {
		s.run(c.name, func(s *adminLists) {
			if status, body := s.Do(c.method, s.Admin+"/broadcast"+c.path, ""); status != c.status {
				s.T.Errorf("%d %s", status, body)
			}
		})
	}
}

// testKicks parts with ann by her connection's ID, and with ben by his name.
func (s *adminLists) testKicks() {
	for _, path := range []string{"/connections/" + s.ids[2], "/connections?user=ben"} {
		if status, body := s.Do("DELETE", s.Admin+"/broadcast"+path, ""); status != 200 {
			s.T.Errorf("%s: %d %s", path, status, body)
		}
	}
	s.ExpectClose(s.ann, websocket.StatusPolicyViolation)
	for s.ben() != "EOF" {
	}
	if got, _ := s.connections("?after=" + s.ids[1]); got != nobody {
		s.T.Errorf("after the kicks: %s", got)
	}
}
