package websocket

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/protocol"
	"github.com/caddy-broadcast/caddy-broadcast/internal/protocol/raw"
)

type panics struct{ http.ResponseWriter }

func (p panics) Unwrap() http.ResponseWriter { return p.ResponseWriter }
func (panics) WriteHeader(int)               { panic(http.ErrAbortHandler) }

// TestPanicInFront: a connection does not stay in the hub when a writer in front panics while the handshake is answered.
func TestPanicInFront(t *testing.T) {
	h := hub.New(hub.Config{})
	defer h.Close(hub.ReasonRestart, "", 0, time.Second)
	ended := make(endings)
	endpoint := &Endpoint{Endpoint: &protocol.Endpoint{Hub: h, MaxMessage: 100}, Offers: []Offer{{Protocol: raw.Protocol{}, Plain: &hub.ConnOptions{
		Format: raw.Format{}, PingInterval: time.Minute, WriteTimeout: time.Second, MaxBacklog: hub.MinBacklog, Observer: ended,
	}}}}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		endpoint.Accept(panics{w}, r, new(protocol.Request), func() {})
	}))
	defer server.Close()
	if _, _, err := websocket.Dial(t.Context(), server.URL, nil); err == nil {
		t.Error("the handshake was answered")
	}
	select {
	case <-ended:
	case <-time.After(20 * time.Second):
		t.Error("the connection stays")
	}
}

// endings is a hub.Observer that is closed when a connection ends.
type endings chan struct{}

func (endings) Subscribed(*hub.Conn, string)   {}
func (endings) Unsubscribed(*hub.Conn, string) {}
func (e endings) Ended(*hub.Conn, hub.Reason)  { close(e) }
