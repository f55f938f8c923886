package socketio

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
)

// TestPollLeavesNothing: when a session ends, nothing of what was for its client counts as memory any more, whether the GET that
// waits gets it or not.
func TestPollLeavesNothing(t *testing.T) {
	frames := textFrame([]byte(`42["x"]`))
	for name, end := range map[string]func(p *transport, cancel func()){
		"the client is gone": func(p *transport, cancel func()) {
			cancel()
			p.TryWrite(frames)
			p.Close()
		},
		"the client has left": func(p *transport, _ func()) {
			p.finish(noopPacket)
			p.TryWrite(frames)
			p.Close()
		},
		"too much for an answer": func(p *transport, _ func()) {
			long := textFrame(make([]byte, maxAnswer))
			p.TryWrite(append(long[:len(long):len(long)], frames...))
			p.Close()
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				held := sessionCost
				p := &transport{closed: func(bool) {}, hold: func(n int) { held += n }}
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				go p.poll(ctx)
				synctest.Wait()
				end(p, cancel)
				synctest.Wait()
				if held != 0 {
					t.Errorf("%d bytes", held)
				}
			})
		})
	}
}

// broken is a response that cannot be written.
type broken struct {
	*httptest.ResponseRecorder
	write func()
}

func (b broken) Write([]byte) (int, error) {
	b.write()
	return 0, errors.New("broken")
}

// TestAnswerIsLost: when an answer with messages cannot be written, the session ends, even if the client has moved to a WebSocket
// meanwhile, since it would miss them. With recovery it gets them.
func TestAnswerIsLost(t *testing.T) {
	for _, c := range []struct{ frames, lives bool }{{true, false}, {false, true}} {
		testPoller(t, func(t *testing.T, p *poller) {
			s := new(sink)
			u := p.try(s)
			u.probe(s)
			if c.frames {
				p.transport.TryWrite(textFrame([]byte(`42["x"]`)))
			}
			r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
			p.get(broken{httptest.NewRecorder(), func() { u.move(s) }}, r)
			synctest.Wait()
			if p.transport.over() == c.lives {
				t.Errorf("with messages %v: it lives %v", c.frames, !c.lives)
			}
		})
	}
}
