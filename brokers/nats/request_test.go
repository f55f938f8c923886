package nats

import (
	"context"
	"errors"
	"testing"

	natsgo "github.com/nats-io/nats.go"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
	"github.com/caddy-broadcast/caddy-broadcast/internal/natstest"
)

// A request whose connection is lost does not wait for an answer any more.
func TestRequestOfLostConnection(t *testing.T) {
	s := natstest.Start(t, "")
	proxy := natstest.NewProxy(t, s)
	n := dialTest(t, testConfig(t, proxy.URL(), 1))
	conn, err := natsgo.Connect(s.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	asked := make(chan struct{}, 1)
	if _, err := conn.Subscribe("silent", func(*natsgo.Msg) { asked <- struct{}{} }); err != nil {
		t.Fatal(err)
	}
	if err := conn.Flush(); err != nil {
		t.Fatal(err)
	}
	answer := make(chan error, 1)
	go func() {
		answer <- n.ask(context.Background(), "silent", nil, 1, func(*natsgo.Msg) (bool, error) { return false, nil })
	}()
	<-asked
	proxy.Cut()
	if err := <-answer; !errors.Is(err, errLost) || !errors.Is(err, broker.ErrDown) {
		t.Error(err)
	}
	n.Await(t, "repair", func() bool { return n.Repairs >= 2 && !n.Down })
}
