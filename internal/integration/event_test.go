package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyevents"
	"github.com/coder/websocket"

	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
)

// hubEvent is an event of the hub, published.
type hubEvent struct {
	Channel, Event string
	Data           struct {
		Type, Source string
		Data         map[string]any
	}
}

// eventReader takes events from a stream of broadcast.v1, which may have several in a frame.
type eventReader struct {
	next    func() string
	waiting []hubEvent
}

// expect wants an event of ann's connection, and more of its data: names and values in turn.
func (r *eventReader) expect(t *testing.T, name, channels string, more ...string) {
	t.Helper()
	if len(r.waiting) == 0 {
		_, frame, _ := strings.Cut(r.next(), "data: ")
		if err := json.Unmarshal([]byte(frame), &r.waiting); err != nil {
			t.Fatalf("%q: %v", frame, err)
		}
	}
	e := r.waiting[0]
	r.waiting = r.waiting[1:]
	d := e.Data.Data
	got := ""
	if names, ok := d["channels"].([]any); ok {
		got = fmt.Sprint(names...)
	}
	if e.Event != name || e.Data.Type != name || e.Data.Source != "broadcast" || got != channels || d["user"] != "ann" || d["remote"] != "127.0.0.1" ||
		d["transport"] != "websocket" || !strings.HasPrefix(fmt.Sprint(d["connection"]), "c") {
		t.Errorf("not %s of %s: %+v", name, channels, e)
	}
	for i := 0; i < len(more); i += 2 {
		if fmt.Sprint(d[more[i]]) != more[i+1] {
			t.Errorf("%s: %s is %v", name, more[i], d[more[i]])
		}
	}
}

// TestEvents: what becomes of connections is emitted, in order, and Caddy's events can be published.
func TestEvents(t *testing.T) {
	s := caddytest.Start(t, `events {
			on broadcast.subscribed broadcast ops
			on broadcast.unsubscribed broadcast ops
			on broadcast.closed broadcast ops
			on cert_obtained broadcast {event.data.identifier}
		}
		---
		broadcast /ws/* {path.1} {
			user {query.user}
			join room:*
		}`)
	_, next := s.Stream("http://" + s.Admin + "/broadcast/stream?channel=ops&channel=example.com")
	next()
	next()
	t.Run("of a connection", func(t *testing.T) {
		s := s.In(t)
		r := &eventReader{next: next}
		c := s.Dial("/ws/news?user=ann", &websocket.DialOptions{Subprotocols: []string{"broadcast.v1"}})
		r.expect(t, "broadcast.subscribed", "news")
		s.Send(c, `{"join":{"channel":"room:7"},"ref":1}`)
		r.expect(t, "broadcast.subscribed", "room:7")
		s.Send(c, `{"leave":{"channel":"news"},"ref":1}`)
		r.expect(t, "broadcast.unsubscribed", "news")
		c.CloseNow()
		r.expect(t, "broadcast.unsubscribed", "room:7")
		r.expect(t, "broadcast.closed", "", "reason", "client")
		if len(r.waiting) > 0 {
			t.Errorf("more events: %+v", r.waiting)
		}
		s.ExpectMetrics(`published_total{source="event"} 5`, "events_dropped_total 0")
	})
	t.Run("of Caddy", func(t *testing.T) {
		active := caddy.ActiveContext()
		app, err := active.AppIfConfigured("events")
		if err != nil {
			t.Fatal(err)
		}
		before := s.Totals().Messages
		app.(*caddyevents.App).Emit(active, "cert_obtained", map[string]any{"identifier": "example.com"})
		if got := next(); !strings.Contains(got, `"channel":"example.com","event":"cert_obtained"`) || !strings.Contains(got, `"specversion":"1.0"`) {
			t.Errorf("the event is %s", got)
		}
		s.In(t).ExpectMetrics(fmt.Sprintf(`published_total{source="event"} %d`, before+1), "events_dropped_total 0")
	})
}

// slowHandler is a handler of events that holds them up.
type slowHandler struct{}

func (slowHandler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "events.handlers.slow", New: func() caddy.Module { return new(slowHandler) }}
}

func (slowHandler) UnmarshalCaddyfile(*caddyfile.Dispenser) error { return nil }

func (slowHandler) Handle(ctx context.Context, _ caddy.Event) error { <-ctx.Done(); return nil }

func init() { caddy.RegisterModule(slowHandler{}) }

// TestSlowEventHandlers hold up nobody: events are dropped, and counted.
func TestSlowEventHandlers(t *testing.T) {
	s := caddytest.Start(t, `events {
			on broadcast.subscribed slow
			on broadcast.unsubscribed slow
			on broadcast.closed slow
		}
		---
		broadcast /ws`)
	for range 400 {
		c := s.Dial("/ws", nil)
		s.Send(c, "hello")
		s.Expect(c, "hello")
		c.CloseNow()
	}
	s.WaitTotals(func(v caddytest.Totals) bool { return v.Connections == 0 })
	s.ExpectMetrics(fmt.Sprint("events_dropped_total ", 3*400-1-1024))
}
