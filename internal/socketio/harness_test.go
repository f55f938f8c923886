package socketio_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	gorilla "github.com/gorilla/websocket"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/protocol"
	"github.com/caddy-broadcast/caddy-broadcast/internal/socketio"
	"github.com/caddy-broadcast/caddy-broadcast/internal/websocket"
)

// server has one route for Socket.IO.
type server struct {
	*testing.T
	*socketio.Endpoint
	url    string
	replay int

	greeting string
	silent   bool // clients may not publish
}

// nobody is an observer that notices nothing.
type nobody struct{}

func (nobody) Subscribed(*hub.Conn, string)   {}
func (nobody) Unsubscribed(*hub.Conn, string) {}
func (nobody) Ended(*hub.Conn, hub.Reason)    {}

// newServer starts a server. Change may change the route before.
func newServer(t *testing.T, change func(*socketio.Endpoint)) *server {
	t.Helper()
	h := hub.New(hub.Config{History: 100})
	table := socketio.NewTable()
	e := &socketio.Endpoint{
		Endpoint: &protocol.Endpoint{Hub: h, MaxMessage: 1000}, Table: table, Route: "route",
		MayConnect: func(namespace string) bool { return namespace == "/chat" },
		JoinEvent:  "join", LeaveEvent: "leave",
	}
	p := socketio.Protocol{Endpoint: e}
	options := func(transport string) func(hub.Format) *hub.ConnOptions {
		return func(f hub.Format) *hub.ConnOptions {
			return &hub.ConnOptions{
				Transport: transport, Next: "websocket", Format: f, PingInterval: time.Hour, WriteTimeout: 10 * time.Second,
				MaxBacklog: hub.MinBacklog, Observer: table.Observe(nobody{}),
			}
		}
	}
	if change != nil {
		change(e)
	}
	e.Polling = options("polling")(p.Format(0))
	e.Sockets = &websocket.Endpoint{Endpoint: e.Endpoint, Offers: websocket.Offers(protocol.Set{p}, 0, options("websocket")), Rate: e.Rate}
	s := &server{T: t, Endpoint: e}
	site := httptest.NewServer(s)
	s.url = site.URL
	t.Cleanup(func() {
		h.Close(hub.ReasonRestart, "", 0, time.Millisecond)
		site.Close()
	})
	return s
}

// ServeHTTP is the handler that the route would be in.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	req := &protocol.Request{
		Subscriber: hub.Subscriber{Channels: []string{"main"}, User: r.Header.Get("User"), Replay: s.replay}, Greeting: s.greeting,
		Publish: []string{"main"}, Query: r.URL.Query(),
		MayJoin: func(channel string) bool { return strings.HasPrefix(channel, "room:") },
	}
	if s.silent {
		req.Publish = nil
	}
	err := s.Serve(w, r, req, func(string) {})
	if e, ok := errors.AsType[caddyhttp.HandlerError](err); ok {
		w.WriteHeader(e.StatusCode)
	} else if err != nil {
		s.Error(err)
	}
}

// answer is the status and the body of a response.
type answer struct {
	status int
	body   string
}

var unknown = answer{400, `{"code":1,"message":"Session ID unknown"}`}
var bad = answer{400, `{"code":3,"message":"Bad request"}`}

// do sends a request. Header has names and values.
func (s *server) do(method, query, body string, header ...string) answer {
	s.Helper()
	r, err := http.NewRequest(method, s.url+"/?"+query, strings.NewReader(body))
	if err != nil {
		s.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		s.Error(err)
		return answer{}
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		s.Error(err)
	}
	return answer{resp.StatusCode, string(b)}
}

// transports returns what the only connection counts as, in the totals and in the list.
func (s *server) transports() string {
	s.Helper()
	list := s.Hub.Connections(hub.Filter{}, 2) // waits for the loops
	for name, n := range s.Hub.Stats().Transports {
		if len(list) != 1 || (n == 1) != (name == list[0].Transport) || n < 0 {
			s.Errorf("%d %s, of %+v", n, name, list)
		}
	}
	return list[0].Transport
}

// want fails the test if there is another answer.
func (s *server) want(got, want answer) {
	s.Helper()
	if got != want {
		s.Errorf("got %d %q, want %d %q", got.status, got.body, want.status, want.body)
	}
}

// page is a client that polls.
type page struct {
	*server
	query string // with its session
}

const engine = "EIO=4&transport=polling"

// open begins a session by polling.
func (s *server) open() *page {
	s.Helper()
	got := s.do("GET", engine, "")
	_, rest, ok := strings.Cut(got.body, `0{"sid":"`)
	sid, _, _ := strings.Cut(rest, `"`)
	if got.status != 200 || !ok || len(sid) != 20 {
		s.Fatalf("%+v", got)
	}
	return &page{s, engine + "&sid=" + sid}
}

func (p *page) sid() string             { return p.query[len(engine)+len("&sid="):] }
func (p *page) get() answer             { p.Helper(); return p.do("GET", p.query, "") }
func (p *page) post(body string) answer { p.Helper(); return p.do("POST", p.query, body) }

// poll has a GET wait in the background.
func (p *page) poll() <-chan answer {
	got := make(chan answer, 1)
	go func() { got <- p.do("GET", p.query, "") }()
	return got
}

// awaitGet waits until the client's GET waits.
func (p *page) awaitGet() {
	for !p.Table.Waits(p.sid(), p.Route) {
		runtime.Gosched()
	}
}

// enter takes the client into a namespace, and returns its ID there, and what else came.
func (p *page) enter(packet string) (body string) {
	p.Helper()
	p.want(p.post(packet), answer{200, "ok"})
	got := p.get()
	if got.status != 200 {
		p.Fatalf("%+v", got)
	}
	return got.body
}

// socket is a client with a WebSocket.
type socket struct {
	*server
	*gorilla.Conn
}

func (s *server) dial(query string) *socket {
	s.Helper()
	c, resp, err := gorilla.DefaultDialer.Dial("ws"+strings.TrimPrefix(s.url, "http")+"/?"+query, nil)
	if err != nil {
		s.Fatal(err, resp)
	}
	s.Cleanup(func() { c.Close() })
	return &socket{s, c}
}

func (c *socket) send(text string) {
	c.Helper()
	if err := c.WriteMessage(gorilla.TextMessage, []byte(text)); err != nil {
		c.Error(err)
	}
}

// read returns the next message; of a binary one after "b", and of a close "closed" and the code.
func (c *socket) read() string {
	c.Helper()
	c.SetReadDeadline(time.Now().Add(10 * time.Second))
	kind, p, err := c.ReadMessage()
	if closed := new(gorilla.CloseError); errors.As(err, &closed) {
		return fmt.Sprint("closed ", closed.Code)
	}
	if err != nil {
		return "failed " + err.Error()
	}
	if kind == gorilla.BinaryMessage {
		return "b" + string(p)
	}
	return string(p)
}

// wants fails the test if anything else comes.
func (c *socket) wants(texts ...string) {
	c.Helper()
	for _, want := range texts {
		if got := c.read(); got != want {
			c.Fatalf("got %q, want %q", got, want)
		}
	}
}
