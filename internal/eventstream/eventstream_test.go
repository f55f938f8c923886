package eventstream_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/goleak"

	"github.com/caddy-broadcast/caddy-broadcast/internal/eventstream"
	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/protocol"
	"github.com/caddy-broadcast/caddy-broadcast/internal/protocol/raw"
	"github.com/caddy-broadcast/caddy-broadcast/internal/protocol/v1"
	"github.com/caddy-broadcast/caddy-broadcast/internal/socket"
	"github.com/caddy-broadcast/caddy-broadcast/internal/websocket"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// site serves event streams, and WebSockets to compare with, on net/http.
type site struct {
	hub    *hub.Hub
	server *httptest.Server
	addr   string
	end    func()
}

func serve(t *testing.T, o hub.Config, change func(*hub.ConnOptions), wrap func(http.Handler) http.Handler) *site {
	h := hub.New(o)
	options := func(f hub.Format) *hub.ConnOptions {
		_, oneWay := f.(eventstream.Format)
		return &hub.ConnOptions{Format: f, PingInterval: time.Minute, WriteTimeout: 5 * time.Second, MaxBacklog: 1 << 20, OneWay: oneWay}
	}
	poller := socket.NewPoller()
	streams := &eventstream.Endpoint{Hub: h, Offers: []eventstream.Offer{{raw.Protocol{}, options(eventstream.Format{})}}, Poller: poller}
	sockets := &websocket.Endpoint{
		Endpoint: &protocol.Endpoint{Hub: h, MaxMessage: 1000},
		Offers:   []websocket.Offer{{Protocol: raw.Protocol{}}, {Protocol: v1.Protocol{}, Plain: options(v1.Format{})}},
		Poller:   poller,
	}
	if change != nil {
		change(streams.Offers[0].Options)
	}
	var handler http.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		req := &protocol.Request{Subscriber: hub.Subscriber{Channels: strings.Split(r.URL.Query().Get("channels"), ","), LastID: eventstream.LastID(r)}}
		var err error
		switch {
		case websocket.IsRequest(r):
			err = sockets.Accept(w, r, req, func() {})
		case eventstream.IsRequest(r):
			err = streams.Accept(w, r, req, func() {})
		default:
			http.NotFound(w, r)
		}
		if err != nil {
			status := http.StatusInternalServerError
			if e := new(caddyhttp.HandlerError); errors.As(err, e) {
				status = e.StatusCode
			}
			http.Error(w, err.Error(), status)
		}
	})
	if wrap != nil {
		handler = wrap(handler)
	}
	s := &site{hub: h, server: httptest.NewUnstartedServer(handler)}
	s.server.EnableHTTP2 = true
	s.end = sync.OnceFunc(func() { h.Close(hub.ReasonRestart, "", 0, 5*time.Second) })
	t.Cleanup(func() {
		s.end()
		s.server.Close()
		if n := poller.Len(); n > 0 {
			t.Errorf("the poller still knows %d sockets", n)
		}
		poller.Close()
	})
	return s
}

func (s *site) start() *site {
	s.server.Start()
	s.addr = s.server.Listener.Addr().String()
	return s
}

// event is one of a stream, or a message or gap of broadcast.v1.
type event struct{ id, kind, data string }

// request sends a request's head.
func (s *site) request(t testing.TB, channels, header string) (net.Conn, *bufio.Reader) {
	t.Helper()
	c, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(20 * time.Second))
	fmt.Fprintf(c, "GET /?channels=%s HTTP/1.1\r\nHost: h\r\n%s\r\n", channels, header)
	return c, bufio.NewReader(c)
}

const accept = "Accept: text/event-stream\r\n"

// stream opens an event stream and returns its head.
func (s *site) stream(t testing.TB, channels, header string) (net.Conn, *bufio.Reader, *http.Response) {
	t.Helper()
	c, r := s.request(t, channels, accept+header)
	t.Cleanup(func() { c.Close() })
	head, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	return c, bufio.NewReader(head.Body), head
}

// next reads the next block of a stream.
func next(r *bufio.Reader) (e event, err error) {
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return event{}, err
		}
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		switch name {
		case "":
			return e, nil
		case "id":
			e.id = value
		case "event":
			e.kind = value
		case "data":
			e.data += value + "\n"
		case ":", "retry":
			e.kind = name
		}
	}
}

func expect(t testing.TB, r *bufio.Reader, want ...event) {
	t.Helper()
	for _, w := range want {
		e, err := next(r)
		if w.id == "*" {
			w.id = e.id
		}
		if err != nil || e != w {
			t.Fatalf("got %+v and %v, not %+v", e, err, w)
		}
	}
}

func (s *site) publish(t testing.TB, channel, data string) string {
	t.Helper()
	m := &hub.Message{Channel: channel, Data: []byte(data)}
	if err := s.hub.Publish(m); err != nil {
		t.Fatal(err)
	}
	return m.ID()
}

func (s *site) wait(t testing.TB, done func(hub.Stats) bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !done(s.hub.Stats()); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("it does not come: %+v", s.hub.Stats())
		}
	}
}

func TestStream(t *testing.T) {
	s := serve(t, hub.Config{History: 10}, nil, nil).start()
	first := s.publish(t, "a", "before")
	c, r, head := s.stream(t, "a", "")
	t.Run("the head", func(t *testing.T) { checkHead(t, head) })
	expect(t, r, event{"", "retry", ""}, event{first, "", ""})
	second := s.publish(t, "a", "one\ntwo")
	s.publish(t, "b", "other")
	expect(t, r, event{second, "", "one\ntwo\n"})
	third := s.publish(t, "a", "")
	expect(t, r, event{third, "", "\n"})

	_, resumed, _ := s.stream(t, "a", "Last-Event-ID: "+first+"\r\n")
	expect(t, resumed, event{"", "retry", ""}, event{first, "", ""}, event{second, "", "one\ntwo\n"}, event{third, "", "\n"})
	now := s.publish(t, "b", "")
	_, gap, _ := s.stream(t, "a", "Last-Event-ID: from-1\r\n")
	expect(t, gap, event{"", "retry", ""}, event{now, "gap", `{"channels":["a"],"id":"` + now + `"}` + "\n"})
	last := s.publish(t, "a", "!")
	for _, r := range []*bufio.Reader{r, resumed, gap} {
		expect(t, r, event{last, "", "!\n"})
	}

	c.Close()
	s.wait(t, func(stats hub.Stats) bool { return stats.Connections == 2 })
	t.Run("the end of the hub", func(t *testing.T) {
		s.end()
		for _, r := range []*bufio.Reader{resumed, gap} {
			expect(t, r, event{"", "retry", ""})
			if _, err := next(r); err != io.EOF {
				t.Errorf("after the end: %v", err)
			}
		}
		// Who comes now is to come again.
		_, late, head := s.stream(t, "a", "")
		expect(t, late, event{"", "retry", ""})
		if _, err := next(late); head.StatusCode != 200 || err != io.EOF {
			t.Errorf("on a hub that is closed: %d, %v", head.StatusCode, err)
		}
	})
}

func checkHead(t *testing.T, head *http.Response) {
	for name, want := range map[string]string{
		"Content-Type":      "text/event-stream",
		"Cache-Control":     "no-store, no-transform",
		"X-Accel-Buffering": "no",
	} {
		if got := head.Header.Get(name); got != want || head.StatusCode != 200 {
			t.Errorf("%s is %q, status %d", name, got, head.StatusCode)
		}
	}
	if head.ContentLength >= 0 || len(head.TransferEncoding) > 0 {
		t.Errorf("length %d, transfer encoding %q", head.ContentLength, head.TransferEncoding)
	}
}

func TestIsRequest(t *testing.T) {
	for name, c := range map[string]struct {
		method, accept string
		want           bool
	}{
		"an event stream":      {"GET", "text/event-stream", true},
		"among others":         {"GET", "application/json, Text/Event-Stream;q=1", true},
		"anything":             {"GET", "*/*", false},
		"nothing":              {"GET", "", false},
		"a longer type":        {"GET", "text/event-streams", false},
		"the head of a stream": {"HEAD", "text/event-stream", false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := eventstream.IsRequest(&http.Request{Method: c.method, Header: http.Header{"Accept": {c.accept}}}); got != c.want {
				t.Errorf("%s %q: %v", c.method, c.accept, got)
			}
		})
	}
}

func TestTooMany(t *testing.T) {
	s := serve(t, hub.Config{MaxConnections: 1}, nil, nil).start()
	s.stream(t, "a", "")
	_, _, head := s.stream(t, "a", "")
	if head.StatusCode != 503 || head.Header.Get("Retry-After") == "" {
		t.Errorf("%d %v", head.StatusCode, head.Header)
	}
}

// TestHeartbeat: a stream that is quiet gets comments, and is not taken for dead.
func TestHeartbeat(t *testing.T) {
	s := serve(t, hub.Config{}, func(o *hub.ConnOptions) { o.PingInterval = time.Second }, nil).start()
	_, r, _ := s.stream(t, "a", "")
	expect(t, r, event{"", "retry", ""}, event{"*", "", ""})
	for range 3 {
		expect(t, r, event{"", ":", ""})
	}
}

// TestStreamsInTheHandler: where the connection cannot be taken over the stream is the handler's, until its end.
func TestStreamsInTheHandler(t *testing.T) {
	for _, c := range []struct {
		name string
		wrap func(http.ResponseWriter) http.ResponseWriter
		tls  bool
	}{
		{"on HTTP/2", func(w http.ResponseWriter) http.ResponseWriter { return w }, true},
		{"behind a writer without Unwrap", func(w http.ResponseWriter) http.ResponseWriter { return opaque{w} }, false},
		{"behind a writer that encodes", func(w http.ResponseWriter) http.ResponseWriter { return encoder{w} }, false},
	} {
		t.Run(c.name, func(t *testing.T) { testStreamsInTheHandler(t, c.wrap, c.tls) })
	}
}

func testStreamsInTheHandler(t *testing.T, wrap func(http.ResponseWriter) http.ResponseWriter, tls bool) {
	var handlers atomic.Int64
	s := serve(t, hub.Config{}, nil, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			handlers.Add(1)
			defer handlers.Add(-1)
			next.ServeHTTP(wrap(w), r)
		})
	})
	if tls {
		s.server.StartTLS()
	} else {
		s.server.Start()
	}
	open := func() (*http.Response, *bufio.Reader) {
		resp, r := s.get(t)
		if tls != (resp.ProtoMajor == 2) {
			t.Fatal(resp.Proto)
		}
		expect(t, r, event{"", "retry", ""}, event{"*", "", ""})
		return resp, r
	}
	one, first := open()
	_, second := open()
	for i := range 100 {
		id := s.publish(t, "a", strconv.Itoa(i))
		expect(t, first, event{id, "", fmt.Sprintln(i)})
		expect(t, second, event{id, "", fmt.Sprintln(i)})
	}
	if n := handlers.Load(); n != 2 {
		t.Errorf("%d handlers", n)
	}
	one.Body.Close()
	s.wait(t, func(stats hub.Stats) bool { return stats.Connections == 1 && handlers.Load() == 1 })
	s.end()
	expect(t, second, event{"", "retry", ""})
	if _, err := next(second); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
	s.wait(t, func(hub.Stats) bool { return handlers.Load() == 0 })
}

// get opens an event stream on channel a with net/http's client.
func (s *site) get(t *testing.T) (*http.Response, *bufio.Reader) {
	t.Helper()
	req, _ := http.NewRequestWithContext(t.Context(), "GET", s.server.URL+"/?channels=a", nil)
	req.Header.Set("Accept", "text/event-stream")
	resp, err := s.server.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	return resp, bufio.NewReader(resp.Body)
}

// opaque hides the writer's other methods but Flush.
type opaque struct{ w http.ResponseWriter }

func (o opaque) Header() http.Header         { return o.w.Header() }
func (o opaque) Write(p []byte) (int, error) { return o.w.Write(p) }
func (o opaque) WriteHeader(status int)      { o.w.WriteHeader(status) }
func (o opaque) Flush()                      { o.w.(http.Flusher).Flush() }

// encoder says that it encodes.
type encoder struct{ http.ResponseWriter }

func (e encoder) Unwrap() http.ResponseWriter { return e.ResponseWriter }
func (e encoder) WriteHeader(status int) {
	e.Header().Set("Content-Encoding", "none")
	e.ResponseWriter.WriteHeader(status)
}

// TestStuckOnHTTP2: a stream whose window is closed costs only itself, and is cut off.
func TestStuckOnHTTP2(t *testing.T) {
	s := serve(t, hub.Config{}, func(o *hub.ConnOptions) {
		o.MaxBacklog, o.WriteTimeout = 256<<10, time.Second
	}, nil)
	s.server.StartTLS()
	var readers []*bufio.Reader
	for range 2 {
		_, r := s.get(t)
		readers = append(readers, r)
	}
	expect(t, readers[0], event{"", "retry", ""}, event{"*", "", ""})
	data := strings.Repeat("x", 10_000)
	for s.hub.Stats().Connections == 2 { // the other one reads nothing
		id := s.publish(t, "a", data)
		expect(t, readers[0], event{id, "", data + "\n"})
	}
	expect(t, readers[0], event{s.publish(t, "a", "still here"), "", "still here\n"})
}
