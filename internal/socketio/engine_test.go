package socketio_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"runtime"
	"strings"
	"testing"

	gorilla "github.com/gorilla/websocket"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/socketio"
)

var upgrade = []string{"Connection", "Upgrade", "Upgrade", "websocket", "Sec-WebSocket-Version", "13", "Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA=="}

// TestChecks: each request that is wrong gets the error of the reference, and of two errors the one that the reference finds
// first. None of them harms the session.
func TestChecks(t *testing.T) {
	s := newServer(t, nil)
	p := s.open()
	sid := p.query[len(engine):]
	for _, c := range []struct {
		method, query string
		header        []string
		want          answer
	}{
		{"GET", "EIO=4", nil, answer{400, `{"code":0,"message":"Transport unknown"}`}},
		{"GET", "EIO=4&transport=flash&sid=none", nil, answer{400, `{"code":0,"message":"Transport unknown"}`}},
		{"GET", engine + "&sid=none", nil, unknown},
		{"GET", "EIO=4&transport=websocket&sid=none", upgrade, unknown},
		{"GET", "EIO=4&transport=websocket" + sid, nil, bad},
		{"GET", p.query, upgrade, bad},
		{"POST", "EIO=3&transport=polling", nil, answer{400, `{"code":2,"message":"Bad handshake method"}`}},
		{"PUT", engine, nil, answer{400, `{"code":2,"message":"Bad handshake method"}`}},
		{"GET", "EIO=3&transport=websocket", nil, bad},
		{"GET", "EIO=3&transport=polling", nil, answer{400, `{"code":5,"message":"Unsupported protocol version"}`}},
		{"GET", "transport=polling", nil, answer{400, `{"code":5,"message":"Unsupported protocol version"}`}},
		{"GET", "EIO=abc&transport=websocket", upgrade, answer{400, `{"code":5,"message":"Unsupported protocol version"}`}},
		{"PUT", p.query, nil, bad},
		{"DELETE", p.query, nil, bad},
		{"HEAD", p.query, nil, answer{400, ""}},
		{"GET", p.query, []string{"User", "other"}, answer{403, `{"code":4,"message":"Forbidden"}`}},
	} {
		if got := s.do(c.method, c.query, "", c.header...); got != c.want {
			t.Errorf("%s %s: got %+v, want %+v", c.method, c.query, got, c.want)
		}
	}
	p.enter("40")
	s.Route = "other"
	s.want(p.get(), unknown)
}

// TestOpen: the handshake has exactly the keys that the official tests want.
func TestOpen(t *testing.T) {
	s := newServer(t, func(e *socketio.Endpoint) { e.MaxMessage = 64 << 10 })
	for _, c := range []struct{ got, rest string }{
		{s.do("GET", engine, "").body, `"upgrades":["websocket"],"pingInterval":3600000,"pingTimeout":3600000,"maxPayload":135168}`},
		{s.dial("EIO=4&transport=websocket").read(), `"upgrades":[],"pingInterval":3600000,"pingTimeout":3600000,"maxPayload":135168}`},
	} {
		if !strings.HasSuffix(c.got, c.rest) || !json.Valid([]byte(c.got[1:])) {
			t.Errorf("%s", c.got)
		}
	}
}

// TestGetWaits: a GET is answered with all that there is, and waits if that is nothing.
func TestGetWaits(t *testing.T) {
	s := newServer(t, nil)
	p := s.open()
	p.enter("40")
	got := p.poll()
	s.Hub.Publish(&hub.Message{Channel: "main", Data: []byte("x")})
	s.want(<-got, answer{200, `42["message","x"]`})
	s.Hub.Publish(&hub.Message{Channel: "main", Event: "e", Data: []byte("1"), Kind: hub.JSON}, &hub.Message{Channel: "main", Data: []byte("abc"), Kind: hub.Binary})
	s.want(p.get(), answer{200, "42[\"e\",1]\x1e451-[\"message\",{\"_placeholder\":true,\"num\":0}]\x1ebYWJj"})
}

// TestTwoGets: two GETs at once end the session.
func TestTwoGets(t *testing.T) {
	s := newServer(t, nil)
	p := s.open()
	p.enter("40")
	a, b := p.poll(), p.poll()
	first, second := <-a, <-b
	if first == bad {
		first, second = second, first
	}
	s.want(first, answer{200, "1"})
	s.want(second, bad)
	s.want(p.get(), unknown)
}

// TestTwoPosts: two POSTs at once end the session.
func TestTwoPosts(t *testing.T) {
	s := newServer(t, nil)
	p := s.open()
	body, rest := io.Pipe()
	r, _ := http.NewRequest("POST", s.url+"/?"+p.query, body)
	done := make(chan int)
	go func() {
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Error(err)
			close(done)
			return
		}
		resp.Body.Close()
		done <- resp.StatusCode
	}()
	for !p.Table.Posts(p.sid(), p.Route) {
		runtime.Gosched()
	}
	s.want(p.post("3"), bad)
	rest.Write([]byte("40"))
	rest.Close()
	if status := <-done; status != 400 {
		t.Error(status)
	}
	s.want(p.get(), unknown)
}

// TestNothingLeft: nothing is kept of sessions that have ended.
func TestNothingLeft(t *testing.T) {
	s := newServer(t, nil)
	for range 3 {
		p := s.open()
		p.enter("40\x1e40/chat,")
		p.post("1")
		q := s.open()
		q.enter("40")
		q.post("nonsense")
		c, _, _ := s.connect("")
		c.send("1")
		c.read()
		s.open().post("1") // in no namespace
	}
	for {
		if polling, inNamespaces := s.Table.Sessions(); polling+inNamespaces+s.Hub.Stats().Connections == 0 {
			break
		}
		runtime.Gosched()
	}
}

// TestBodies: what is wrong in the body of a POST ends the session.
func TestBodies(t *testing.T) {
	s := newServer(t, nil)
	for _, c := range []struct {
		body string
		want answer
	}{
		{"", bad}, {"x", bad}, {"40\x1e", bad}, {"bx", bad}, {"2", bad}, {"0{}", bad}, {"\xff", bad}, {"4", bad}, {"42[]", bad}, {"7", bad},
		{"40\x1e40", bad}, {`42["x"]`, bad}, {"41", bad}, {"bAAAA", bad}, {strings.Repeat("x", 100_000), answer{413, ""}},
	} {
		p := s.open()
		if got := p.post(c.body); got != c.want {
			t.Errorf("%.20q: %+v", c.body, got)
		}
		s.want(p.get(), unknown)
	}
	p := s.open()
	s.want(s.do("POST", p.query, "x", "Content-Type", "application/octet-stream"), bad)
	s.want(p.get(), unknown)
	p = s.open()
	s.want(p.post("3\x1e5\x1e6\x1e40"), answer{200, "ok"})
	if got := p.get(); got.status != 200 {
		t.Error(got)
	}
}

// TestClientCloses: a client that ends its session gets its GET answered with what means nothing.
func TestClientCloses(t *testing.T) {
	s := newServer(t, nil)
	p := s.open()
	p.enter("40")
	got := p.poll()
	p.awaitGet()
	s.want(p.post("1"), answer{200, "ok"})
	s.want(<-got, answer{200, "6"})
	s.want(p.get(), unknown)
}

// TestServerCloses: a client that is closed is told of it by the GET that waits, or by the next one. The end comes alone: the
// client looks at it at once, and at the packets with it later, when it has made a new connection though it was to stay away
// (socket.io-client 4.8.4, lib/manager.ts, ondecoded).
func TestServerCloses(t *testing.T) {
	s := newServer(t, nil)
	p := s.open()
	p.enter("40")
	s.Hub.Publish(&hub.Message{Channel: "main", Data: []byte("x")})
	s.Hub.Kick(hub.Filter{Channel: "main"}, hub.ReasonPolicy, "")
	s.want(p.post(`42["x"]`), answer{200, "ok"}) // it does not know it yet
	s.want(p.get(), answer{200, "42[\"message\",\"x\"]\x1e41"})
	s.want(p.get(), answer{200, "1"})
	s.want(p.get(), unknown)
	// It is the same if a GET waits.
	p = s.open()
	p.enter("40")
	got := p.poll()
	p.awaitGet()
	s.Hub.Kick(hub.Filter{Channel: "main"}, hub.ReasonPolicy, "")
	s.want(<-got, answer{200, "41"})
	s.want(p.get(), answer{200, "1"})
	s.want(p.get(), unknown)
}

// TestGetBreaks: a client that gives up its GET has ended its session.
func TestGetBreaks(t *testing.T) {
	s := newServer(t, nil)
	p := s.open()
	p.enter("40")
	ctx, cancel := context.WithCancel(context.Background())
	r, _ := http.NewRequestWithContext(ctx, "GET", s.url+"/?"+p.query, nil)
	done := make(chan error)
	go func() {
		_, err := http.DefaultClient.Do(r)
		done <- err
	}()
	p.awaitGet()
	cancel()
	<-done
	for p.post("3") != unknown { // the server notices when it reads the end of the connection
	}
}

// TestUpgrade: a client moves to a WebSocket, and gets all in order.
func TestUpgrade(t *testing.T) {
	s := newServer(t, nil)
	p := s.open()
	p.enter("40")
	got := p.poll()
	p.awaitGet()
	query := strings.Replace(p.query, "polling", "websocket", 1)
	c := s.dial(query)
	c.send("2probe")
	c.wants("3probe")
	s.want(<-got, answer{200, "6"})
	s.want(p.get(), answer{200, "6"})
	s.Hub.Publish(&hub.Message{Channel: "main", Data: []byte("1")})
	if got := s.transports(); got != "polling" {
		t.Error(got)
	}
	c.send("5")
	c.wants(`42["message","1"]`)
	if got := s.transports(); got != "websocket" {
		t.Error(got)
	}
	s.Hub.Publish(&hub.Message{Channel: "main", Data: []byte("2")})
	c.wants(`42["message","2"]`)
	c.send(`420["x",1]`)
	if a, b := c.read(), c.read(); a != `42["x",1]` || !strings.HasPrefix(b, `430[{"id":"`) {
		t.Errorf("%s, %s", a, b)
	}
	s.want(p.get(), bad)
	s.want(p.post("3"), bad)
	if _, resp, err := gorilla.DefaultDialer.Dial("ws"+strings.TrimPrefix(s.url, "http")+"/?"+query, nil); err == nil || resp.StatusCode != 400 {
		t.Error("it has moved twice", err)
	}
	c.send("2")
	c.wants("closed 1002")
	for p.get() != unknown { // when the WebSocket has ended
	}
}

// TestUpgradeFails: whatever goes wrong with the WebSocket, the session goes on by polling, and may try again.
func TestUpgradeFails(t *testing.T) {
	s := newServer(t, nil)
	p := s.open()
	p.enter("40")
	query := strings.Replace(p.query, "polling", "websocket", 1)
	for _, sends := range [][]string{{"2"}, {"5"}, {"2probe", "2probe"}, {"x"}, {""}, {`42["x"]`}} {
		c := s.dial(query)
		for i, text := range sends {
			c.send(text)
			if i < len(sends)-1 {
				c.wants("3probe")
			}
		}
		c.wants("closed 1002")
		c.Close()
	}
	c := s.dial(query)
	c.send("2probe")
	c.send("5") // at once, as one of the official tests
	s.Hub.Publish(&hub.Message{Channel: "main", Data: []byte("x")})
	c.wants("3probe", `42["message","x"]`)
}
