package integration

import (
	"net/http"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/coder/websocket"

	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
)

// hold is a handler that keeps requests with ?hold until the test lets them go on, as one does that asks an
// authentication service.
type hold struct{}

var held, release = make(chan struct{}), make(chan struct{})

func init() {
	caddy.RegisterModule(hold{})
	httpcaddyfile.RegisterHandlerDirective("test_hold", func(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
		return new(hold), new(hold).UnmarshalCaddyfile(h.Dispenser)
	})
	httpcaddyfile.RegisterDirectiveOrder("test_hold", httpcaddyfile.Before, "basic_auth")
}

func (hold) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.test_hold", New: func() caddy.Module { return new(hold) }}
}
func (hold) UnmarshalCaddyfile(*caddyfile.Dispenser) error { return nil }
func (hold) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if r.URL.Query().Has("hold") {
		held <- struct{}{}
		<-release
	}
	return next.ServeHTTP(w, r)
}

// dialed is the outcome of a handshake.
type dialed struct {
	conn *websocket.Conn
	resp *http.Response
	err  error
}

// dialHeld starts a handshake, and returns while it is held.
func dialHeld(t *testing.T, s *caddytest.Server) <-chan dialed {
	late := make(chan dialed, 1)
	go func() {
		c, resp, err := websocket.Dial(t.Context(), "ws://"+s.Addr+"/ws?hold", nil)
		late <- dialed{c, resp, err}
	}()
	<-held
	return late
}

// streamHeld asks for an event stream, and returns while the request is held.
func streamHeld(t *testing.T, s *caddytest.Server) <-chan *http.Response {
	stream := make(chan *http.Response, 1)
	go func() {
		req, _ := http.NewRequestWithContext(t.Context(), "GET", "http://"+s.Addr+"/ws?hold", nil)
		req.Header.Set("Accept", "text/event-stream")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Error(err)
		}
		stream <- resp
	}()
	<-held
	return stream
}

// TestReloadWhileConnecting: what a reload takes away with close_on_reload is not had by those either who were still in
// a handler in front.
func TestReloadWhileConnecting(t *testing.T) {
	s := caddytest.Start(t, `test_hold
		broadcast /ws {
			close_on_reload
		}`)
	listener := s.Dial("/ws", nil)
	late, stream := dialHeld(t, s), streamHeld(t, s)
	if err := s.Load(`test_hold
		broadcast /ws {
			publish off
			close_on_reload
		}`); err != nil {
		t.Fatal(err)
	}
	s.ExpectClose(listener, websocket.StatusServiceRestart)
	release <- struct{}{}
	release <- struct{}{}
	t.Run("a handshake", func(t *testing.T) {
		if got := <-late; got.err == nil {
			got.conn.SetReadLimit(-1)
			got.conn.Write(t.Context(), websocket.MessageText, []byte("published with the old options"))
			s.In(t).ExpectClose(got.conn, websocket.StatusServiceRestart)
		} else if got.resp == nil || got.resp.StatusCode != 503 || got.resp.Header.Get("Retry-After") == "" {
			t.Errorf("the late handshake: %v %v", got.resp, got.err)
		}
	})
	t.Run("an event stream", func(t *testing.T) {
		if resp := <-stream; resp != nil {
			expectShortStream(t, resp)
		}
	})
	if v := s.Totals(); v.Messages != 0 {
		t.Errorf("%d messages were published by old permissions", v.Messages)
	}
	s.WaitTotals(func(v caddytest.Totals) bool { return v.Connections == 0 })
}

// expectShortStream: a stream ends, and EventSource is told to come again.
func expectShortStream(t *testing.T, resp *http.Response) {
	t.Helper()
	defer resp.Body.Close()
	p := make([]byte, 1000)
	n := 0
	for {
		k, err := resp.Body.Read(p[n:])
		n += k
		if err != nil {
			break
		}
	}
	if resp.StatusCode != 200 || n == 0 {
		t.Errorf("the late stream: %s %q", resp.Status, p[:n])
	}
}

// TestHeldBackStream: stock handlers that keep an answer back make an error of an event stream, not a stream without
// a head.
func TestHeldBackStream(t *testing.T) {
	s := caddytest.Start(t, `intercept /intercept {
			@any status 2xx
			handle_response @any {
				respond replaced
			}
		}
		route /templates {
			templates {
				mime text/event-stream
			}
			broadcast
		}
		broadcast /intercept {
			transports websocket sse
		}`)
	client := &http.Client{Timeout: 20 * time.Second}
	for _, path := range []string{"/intercept", "/templates"} {
		req, _ := http.NewRequest("GET", "http://"+s.Addr+path, nil)
		req.Header.Set("Accept", "text/event-stream")
		resp, err := client.Do(req)
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		resp.Body.Close()
		if resp.StatusCode != 500 || resp.Header.Get("Transfer-Encoding") != "" {
			t.Errorf("%s: %s %v", path, resp.Status, resp.Header)
		}
		c := s.Dial(path, nil)
		s.Publish("", "hello")
		s.Expect(c, "hello")
	}
	s.WaitLog("keeps the event stream back")
	s.WaitTotals(func(v caddytest.Totals) bool { return v.Connections == 2 })
}
