package integration

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/caddy-broadcast/caddy-broadcast/internal/authtest"
	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
)

// dialUntil opens a WebSocket with access until a time, and returns its hello.
func dialUntil(s *caddytest.Server, a *authtest.Access, until time.Time, lastID string) (c *websocket.Conn, h expiresHello) {
	s.T.Helper()
	query, header := a.Grant(until)
	if query == nil {
		query = make(url.Values)
	}
	query.Set("last_id", lastID)
	c = s.Dial("/ws?"+query.Encode(), &websocket.DialOptions{Subprotocols: []string{"broadcast.v1"}, HTTPHeader: header})
	return c, readFrame(s, c)[0].Hello
}

type expiresHello struct {
	ID, Connection string
	Resumed        bool
	Expires        *int
}

type expiresEntry struct {
	ID    string
	Data  any
	Hello expiresHello
}

func readFrame(s *caddytest.Server, c *websocket.Conn) (frame []expiresEntry) {
	s.T.Helper()
	_, p, err := c.Read(s.T.Context())
	if err == nil {
		err = json.Unmarshal(p, &frame)
	}
	if err != nil {
		s.T.Fatal(err)
	}
	return frame
}

// TestExpires: however access is granted, a connection ends with it, an expired one is refused, and a client that comes back with new
// access misses nothing.
func TestExpires(t *testing.T) {
	for _, a := range authtest.Accesses(t) {
		t.Run(a.Name, func(t *testing.T) {
			s := caddytest.Start(t, "broadcast {\nhistory 100\n}\n---\n"+a.Site)
			c, hello := dialUntil(s, &a, time.Now().Add(2*time.Second), "")
			if hello.Expires == nil || *hello.Expires > 2 {
				t.Fatalf("%+v", hello)
			}
			long, hello := dialUntil(s, &a, time.Now().Add(time.Hour), "")
			if e := hello.Expires; e == nil || *e < 3590 || *e > 3600 {
				t.Fatalf("%+v", hello)
			}
			s.Publish("channel=news", "in time")
			last := readFrame(s, c)[0].ID
			s.ExpectClose(c, 4401)
			s.Publish("channel=news", "between")

			query, header := a.Grant(time.Now().Add(-time.Second))
			expectExpired(s, "/ws?"+query.Encode(), header)

			c, hello = dialUntil(s, &a, time.Now().Add(time.Hour), last)
			if frame := readFrame(s, c); !hello.Resumed || len(frame) != 1 || frame[0].Data != "between" {
				t.Errorf("%+v, then %v", hello, frame)
			}
			if frame := readFrame(s, long); frame[0].Data != "in time" {
				t.Errorf("who has access for longer got %v", frame)
			}
			s.WaitTotals(func(v caddytest.Totals) bool { return v.Connections == 2 })
		})
	}
}

// expectExpired: whatever a client asks for after its access has ended gets a 401 that says so.
func expectExpired(s *caddytest.Server, path string, header http.Header) {
	s.T.Helper()
	pairs := []string{}
	for name := range header {
		pairs = append(pairs, name, header.Get(name))
	}
	_, resp, err := s.TryDial(path, &websocket.DialOptions{HTTPHeader: header})
	if err == nil || resp.StatusCode != 401 {
		s.T.Errorf("a handshake: %v, %v", resp, err)
	}
	if status, body := s.Post(s.Addr+path, "text/plain", "x", pairs...); status != 401 || body != "access has expired\n" {
		s.T.Errorf("a POST: %d %q", status, body)
	}
	if status, body := s.Do("GET", s.Addr+path, "", append(pairs, "Accept", "text/event-stream")...); status != 401 {
		s.T.Errorf("a stream: %d %q", status, body)
	}
	if status, body := s.Do("GET", s.Addr+path+"&protocol=broadcast.v1", "", pairs...); status != 401 {
		s.T.Errorf("our client's question why: %d %q", status, body)
	}
}

// TestExpiresForged: a client cannot lengthen its access by sending the header that the backend answers with.
func TestExpiresForged(t *testing.T) {
	silent := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(silent.Close)
	forged := []string{"X-Session-Expires", "never", "X-User", "ann"}
	site := authtest.Accesses(t)[0].Site
	s := caddytest.Start(t, site)
	cookie := "session=" + strconv.FormatInt(time.Now().Add(-time.Second).Unix(), 10)
	if status, body := s.Post(s.Addr+"/ws", "text/plain", "x", append(forged, "Cookie", cookie)...); status != 401 {
		t.Errorf("where the backend sends one: %d %q", status, body)
	}
	before, _, _ := strings.Cut(strings.TrimPrefix(site, "forward_auth /ws "), " ")
	if err := s.Load(strings.Replace(site, before, silent.Listener.Addr().String(), 1)); err != nil {
		t.Fatal(err)
	}
	if status, body := s.Post(s.Addr+"/ws", "text/plain", "x", forged...); status != 400 {
		t.Errorf("where it sends none: %d %q", status, body)
	}
}

// TestExpiresFormats: what other clients get when their access ends.
func TestExpiresFormats(t *testing.T) {
	s := caddytest.Start(t, "broadcast /ws news {\nexpires {query.until}\nsocketio\n}")
	soon := fmt.Sprintf("?until=%.3f", float64(time.Now().Add(1500*time.Millisecond).UnixMilli())/1000)
	raw := s.Dial("/ws"+soon, nil)
	_, plain := s.Stream("http://" + s.Addr + "/ws" + soon)
	_, v1 := s.Stream("http://" + s.Addr + "/ws" + soon + "&protocol=broadcast.v1")
	engine := s.Dial("/ws"+soon+"&EIO=4&transport=websocket", nil)
	s.Send(engine, "40")
	for _, want := range []string{"0{", "40{"} {
		if _, p, err := engine.Read(t.Context()); err != nil || !strings.HasPrefix(string(p), want) {
			t.Fatalf("%q, %v", p, err)
		}
	}
	s.ExpectClose(raw, 4401)
	s.Expect(engine, "41") // after which the page has to connect
	s.ExpectClose(engine, 4401)
	if got := untilEnd(plain); strings.Contains(got, "4401") || strings.Count(got, "retry:") != 2 {
		t.Errorf("an event stream: %q", got)
	}
	if got := untilEnd(v1); !strings.HasSuffix(got, `data: [{"close":{"code":4401,"reason":"access has expired"}}]`+"\n") {
		t.Errorf("a stream of broadcast.v1: %q", got)
	}
	for until, want := range map[string]int{"": 400, "soon": 400, "1999999999999": 400, "1": 401, "never": 200} {
		if status, body := s.Post(s.Addr+"/ws?until="+until, "text/plain", "x"); status != want {
			t.Errorf("%q: %d %q", until, status, body)
		}
	}
	if status, body := s.Do("GET", s.Addr+"/ws?EIO=4&transport=polling&until=1", ""); status != 401 {
		t.Errorf("Socket.IO: %d %q", status, body)
	}
}

// untilEnd returns all that a stream sends.
func untilEnd(next func() string) (all string) {
	for block := next(); block != "EOF"; block = next() {
		all += block
	}
	return all
}

// TestExpiresRecovery: a page of Socket.IO whose access has expired goes on with its session when it connects with new access. One
// that was kicked does not, whatever the code.
func TestExpiresRecovery(t *testing.T) {
	s := caddytest.Start(t, "broadcast {\nhistory 100\n}\n---\nbroadcast /ws news {\nuser ann\nexpires {query.until}\nsocketio\n}")
	connect := func(until time.Time, auth string) (c *websocket.Conn, sid, pid string) {
		t.Helper()
		c = s.Dial(fmt.Sprintf("/ws?EIO=4&transport=websocket&until=%.3f", float64(until.UnixMilli())/1000), nil)
		s.Send(c, "40"+auth)
		var v struct{ SID, PID string }
		for _, prefix := range []string{"0", "40"} {
			_, p, err := c.Read(t.Context())
			if err != nil || !strings.HasPrefix(string(p), prefix) {
				t.Fatalf("%q, %v", p, err)
			}
			json.Unmarshal(p[len(prefix):], &v)
		}
		return c, v.SID, v.PID
	}
	c, sid, pid := connect(time.Now().Add(1500*time.Millisecond), "")
	id := s.Publish("channel=news&event=e", "before")
	s.Expect(c, `42["e","before","`+id+`"]`, "41")
	s.ExpectClose(c, 4401)
	missed := s.Publish("channel=news&event=e", "between")
	c, again, _ := connect(time.Now().Add(time.Hour), fmt.Sprintf(`{"pid":%q,"offset":%q}`, pid, id))
	if again != sid {
		t.Fatalf("%s is not %s", again, sid)
	}
	s.Expect(c, `42["e","between","`+missed+`"]`)
	s.Do("DELETE", s.Admin+"/broadcast/connections?user=ann&code=4401", "")
	s.Expect(c, "41")
	s.ExpectClose(c, 4401)
	if _, other, _ := connect(time.Now().Add(time.Hour), fmt.Sprintf(`{"pid":%q,"offset":%q}`, pid, missed)); other == sid {
		t.Error("who was kicked goes on with its session")
	}
}

// TestKickCode: an administrator chooses the close code, so that our clients stay away.
func TestKickCode(t *testing.T) {
	s := caddytest.Start(t, "broadcast /ws news {\nuser {query.user}\nsocketio\n}")
	raw := s.Dial("/ws?user=ann", nil)
	v1 := s.Dial("/ws?user=ann", &websocket.DialOptions{Subprotocols: []string{"broadcast.v1"}})
	_, stream := s.Stream("http://" + s.Addr + "/ws?user=ann&protocol=broadcast.v1")
	_, plain := s.Stream("http://" + s.Addr + "/ws?user=ann")
	stays := s.Dial("/ws?user=ben", nil)
	for _, code := range []string{"", "1000", "3999", "5000", "x", "-4403", "69939"} {
		if status, body := s.Do("DELETE", s.Admin+"/broadcast/connections?user=ann&code="+code, ""); status != 400 {
			t.Errorf("code %q: %d %q", code, status, body)
		}
	}
	for _, query := range []string{"?user=ann&cod=4403", "?user=ann&channel=news", "/c1?user=ann"} {
		if status, body := s.Do("DELETE", s.Admin+"/broadcast/connections"+query, ""); status != 400 {
			t.Errorf("%s: %d %s", query, status, body)
		}
	}
	if status, body := s.Do("DELETE", s.Admin+"/broadcast/connections?user=ann&code=4403", ""); status != 200 || body != `{"closed":4}`+"\n" {
		t.Fatalf("%d %q", status, body)
	}
	s.ExpectClose(raw, 4403)
	s.ExpectClose(v1, 4403)
	if got := untilEnd(stream); !strings.HasSuffix(got, `data: [{"close":{"code":4403,"reason":"closed by the administrator"}}]`+"\n") {
		t.Errorf("a stream of broadcast.v1: %q", got)
	}
	if got := untilEnd(plain); strings.Contains(got, "4403") {
		t.Errorf("an event stream: %q", got)
	}
	s.Publish("channel=news", "still here")
	s.Expect(stays, "still here")
}
