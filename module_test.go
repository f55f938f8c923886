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

// TestGoAPIConnections: another module changes what connections are subscribed to, and closes them.
func TestGoAPIConnections(t *testing.T) {
	s := caddytest.Start(t, "broadcast /ws news {\nuser {query.user}\n}")
	ann, ben := s.Dial("/ws?user=ann", nil), s.Dial("/ws?user=ben", nil)
	ctx, cancel := caddy.NewContext(caddy.ActiveContext())
	defer cancel()
	hub := broadcast.From(ctx)
	anns, nobody := broadcast.Connections{User: "ann"}, broadcast.Connections{}
	for _, c := range []struct {
		n    int
		do   func() (int, error)
		then string
	}{
		{1, func() (int, error) { return hub.Subscribe(ctx, anns, "room:7") }, "in the room"},
		{1, func() (int, error) { return hub.Unsubscribe(ctx, anns, "room:7") }, ""},
		{0, func() (int, error) { return hub.Unsubscribe(ctx, anns, "room:7") }, ""},
		{1, func() (int, error) { return hub.Subscribe(ctx, broadcast.Connections{ID: "c2"}, "room:8") }, ""},
		{1, func() (int, error) { return hub.Close(ctx, anns, 4403) }, ""},
		{0, func() (int, error) { return hub.Close(ctx, anns, 0) }, ""},
	} {
		if n, err := c.do(); n != c.n || err != nil {
			t.Fatalf("%d, %v", n, err)
		}
		if hub.Publish(broadcast.Message{Channel: "room:7", Data: []byte("in the room")}); c.then != "" {
			s.Expect(ann, c.then)
		}
	}
	s.ExpectClose(ann, 4403)
	hub.Publish(broadcast.Message{Channel: "room:8", Data: []byte("in another")})
	s.Expect(ben, "in another")
	for _, do := range []func() (int, error){
		func() (int, error) { return hub.Subscribe(ctx, nobody, "room:7") },
		func() (int, error) { return hub.Subscribe(ctx, anns, "") },
		func() (int, error) { return hub.Close(ctx, nobody, 0) },
		func() (int, error) { return hub.Close(ctx, anns, 1000) },
	} {
		if n, err := do(); n != 0 || err == nil {
			t.Errorf("%d, %v", n, err)
		}
	}
}
