package socketio

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/protocol"
)

// sink is a WebSocket's sending half.
type sink struct{ closed atomic.Bool }

func (*sink) TryWrite(p []byte) (int, error)               { return len(p), nil }
func (*sink) Write(p []byte, _ time.Duration) (int, error) { return len(p), nil }
func (s *sink) Close()                                     { s.closed.Store(true) }

// TestUpgradeTimeout: a WebSocket to which the client does not move in time ends, whether the client has tried it or not. GETs
// wait again, and the client may try another WebSocket.
func TestUpgradeTimeout(t *testing.T) {
	for _, probed := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			h := hub.New(hub.Config{})
			e := &Endpoint{Endpoint: &protocol.Endpoint{Hub: h, MaxMessage: 1000}, Table: NewTable()}
			o := &hub.ConnOptions{Format: Format{}, PingInterval: time.Hour, WriteTimeout: time.Second, MaxBacklog: hub.MinBacklog}
			conn, _, err := h.Connect(hub.Subscriber{}, o)
			if err != nil {
				t.Fatal(err)
			}
			p := newPoller(e.open(&protocol.Request{}), o)
			p.begin(conn, o)
			conn.Start(&p.transport, nil)
			p.upgrading.Store(true)
			u, s := &upgrade{poller: p}, new(sink)
			u.Start(s)
			if probed {
				u.probe(s)
				if got, what := p.transport.poll(t.Context()); string(got) != noopPacket || what != pollAnswer {
					t.Errorf("%q %v", got, what)
				}
			}
			time.Sleep(upgradeTimeout - time.Nanosecond)
			synctest.Wait()
			if s.closed.Load() {
				t.Error("closed too early")
			}
			time.Sleep(time.Nanosecond)
			synctest.Wait()
			if !s.closed.Load() || p.upgrading.Load() || u.move(s) == nil || !p.transport.polls() {
				t.Error("not closed")
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if got, what := p.transport.poll(ctx); what != pollGone {
				t.Errorf("%q %v", got, what)
			}
			conn.Done()
			h.Close(hub.ReasonRestart, "", 0, time.Second)
		})
	}
}
