package integration

import (
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/broker/brokertest"
	"github.com/caddy-broadcast/caddy-broadcast/internal/brokered"
	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/protocol/raw"
)

// startPeer runs another node of a broker in this process, and returns its connection.
func startPeer(t *testing.T, m *memory, name string) (*hub.Hub, *brokered.Connection) {
	t.Helper()
	h := hub.New(hub.Config{})
	c := brokered.New(h)
	t.Cleanup(func() { h.Close(hub.ReasonRestart, "", 0, time.Second) })
	if err := c.Use(&brokered.Settings{Broker: m.Broker(), Node: name}); err != nil {
		t.Fatal(err)
	}
	return h, c
}

// discard is a client's transport that takes everything.
type discard struct{}

func (discard) TryWrite(p []byte) (int, error)               { return len(p), nil }
func (discard) Write(p []byte, _ time.Duration) (int, error) { return len(p), nil }
func (discard) Close()                                       {}

// TestNodes: the totals list the nodes that share the broker, a publisher is told of the subscribers of all, and a reload keeps
// it so, until the configuration has another broker.
func TestNodes(t *testing.T) {
	a := newMemory(t, "a", brokertest.MemoryConfig{})
	newMemory(t, "b", brokertest.MemoryConfig{})
	s := caddytest.Start(t, onBroker("a", "broadcast /ws x"))
	awaitHealth(s, http.StatusNoContent)
	h, peer := startPeer(t, a, "peer")
	conn, _, err := h.Connect(hub.Subscriber{Channels: []string{"x"}}, &hub.ConnOptions{Format: raw.Format{}, PingInterval: time.Minute, WriteTimeout: time.Minute, MaxBacklog: hub.MinBacklog, OneWay: true})
	if err != nil {
		t.Fatal(err)
	}
	conn.Start(discard{}, nil)
	s.Dial("/ws", nil)

	s.WaitTotals(func(v caddytest.Totals) bool { return len(v.Nodes) == 2 })
	expectPeer(s)
	s.ExpectMetrics("broker_nodes 2")
	if err := s.Load(onBroker("a", "header X-Other on\nbroadcast /ws x")); err != nil {
		t.Fatal(err)
	}
	expectPeer(s)
	if err := s.Load(onBroker("b", "broadcast /ws x")); err != nil {
		t.Fatal(err)
	}
	if v := s.Totals(); len(v.Nodes) != 1 || v.Broker.Nodes != 1 {
		t.Errorf("with another broker: %+v", v.Nodes)
	}
	// The other node was told.
	for deadline := time.Now().Add(time.Second); len(peer.Nodes()) != 1; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the peer sees %+v", peer.Nodes())
		}
	}
	if err := s.Load(onBroker("a", "broadcast /ws x")); err != nil {
		t.Fatal(err)
	}
	s.WaitTotals(func(v caddytest.Totals) bool { return len(v.Nodes) == 2 })
	expectPeer(s)
	if err := s.Load("broadcast /ws x"); err != nil {
		t.Fatal(err)
	}
	if v := s.Totals(); v.Nodes != nil {
		t.Errorf("without a broker: %+v", v.Nodes)
	}
}

// expectPeer expects two nodes, which have a subscriber each.
func expectPeer(s *caddytest.Server) {
	s.T.Helper()
	v := s.Totals()
	if len(v.Nodes) != 2 || v.Nodes[0].Name != "here" || v.Nodes[1].Name != "peer" || v.Nodes[0].ID == v.Nodes[1].ID || v.Broker.Nodes != 2 {
		s.T.Errorf("nodes %+v, broker %+v", v.Nodes, v.Broker)
	}
	var answer struct{ Subscribers int }
	// Polled, because a node tells its numbers once a second.
	for deadline := time.Now().Add(10 * time.Second); answer.Subscribers != 2; time.Sleep(20 * time.Millisecond) {
		_, body := s.Post(s.Admin+"/broadcast/publish?channel=x", "", "hello")
		if err := json.Unmarshal([]byte(body), &answer); err != nil {
			s.T.Fatal(body, err)
		}
		if time.Now().After(deadline) {
			s.T.Fatalf("%d subscribers", answer.Subscribers)
		}
	}
}
