package broadcast_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"

	broadcast "github.com/caddy-broadcast/caddy-broadcast"
	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
)

// TestMain keeps Caddy's files out of the home directory.
func TestMain(m *testing.M) { os.Exit(caddytest.Main(m)) }

// clock is a Caddy app of somebody else's that publishes.
type clock struct {
	hub *broadcast.Hub
}

func (clock) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "clock", New: func() caddy.Module { return new(clock) }}
}

func (c *clock) Provision(ctx caddy.Context) error {
	c.hub = broadcast.From(ctx)
	return nil
}

func (c *clock) Start() error {
	_, err := c.hub.Publish(broadcast.Message{Channel: "time", Event: "tick", Data: []byte("it is five")})
	fmt.Println("published:", err)
	return err
}

func (c *clock) Stop() error { return nil }

func init() { caddy.RegisterModule(clock{}) }

// A Caddy app gets the hub when it is provisioned, and publishes when it likes:
//
//	func (c *clock) Provision(ctx caddy.Context) error {
//		c.hub = broadcast.From(ctx)
//		return nil
//	}
//
//	func (c *clock) Start() error {
//		_, err := c.hub.Publish(broadcast.Message{Channel: "time", Event: "tick", Data: []byte("it is five")})
//		fmt.Println("published:", err)
//		return err
//	}
func ExampleFrom() {
	err := caddy.Run(&caddy.Config{
		Admin:   &caddy.AdminConfig{Disabled: true},
		AppsRaw: caddy.ModuleMap{"clock": []byte("{}")},
	})
	fmt.Println("running:", err)
	caddy.Stop()
	// Output:
	// published: <nil>
	// running: <nil>
}

func TestGoAPI(t *testing.T) {
	s := caddytest.Start(t, `broadcast /ws time`)
	c := s.Dial("/ws", nil)
	ctx, cancel := caddy.NewContext(caddy.ActiveContext())
	defer cancel()
	hub := broadcast.From(ctx)
	id, err := hub.Publish(broadcast.Message{Channel: "time", Event: "tick", Data: []byte("it is five")})
	if err != nil || id != s.Totals().ID {
		t.Fatal(id, err)
	}
	s.Expect(c, "it is five")
	if _, err := hub.Publish(broadcast.Message{Channel: "time", Data: []byte{0xff}, Binary: true}); err != nil {
		t.Fatal(err)
	}
	s.Expect(c, "\xff")
	if _, err := hub.Publish(broadcast.Message{Channel: "time", Data: []byte(`{"hour":5}`), JSON: true}); err != nil {
		t.Fatal(err)
	}
	s.Expect(c, `{"hour":5}`)
	for _, m := range []broadcast.Message{
		{Data: []byte("{"), JSON: true},
		{Data: []byte("{}"), JSON: true, Binary: true},
		{Data: []byte{0xff}},
		{Channel: "a\n"},
		{Event: strings.Repeat("x", 256)},
	} {
		if _, err := hub.Publish(m); err == nil {
			t.Errorf("%+v is published", m)
		}
	}
}
