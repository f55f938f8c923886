package integration

import (
	"bytes"
	"context"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
)

// TestStraddlingWrites: a client whose every write ends in the middle of a message, as one with a buffer of a fixed size
// does, finishes them all, and is not silent.
func TestStraddlingWrites(t *testing.T) {
	s := caddytest.Start(t, `broadcast /ws {
		ping_interval 1s
		echo off
	}`)
	c, _, _, err := ws.Dial(t.Context(), "ws://"+s.Addr+"/ws")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	frame := ws.MustCompileFrame(ws.MaskFrame(ws.NewTextFrame(bytes.Repeat([]byte("x"), 2000))))
	half := len(frame) / 2
	straddling := append(bytes.Clone(frame[half:]), frame[:half]...)
	if _, err := c.Write(frame[:half]); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second) // of five ping intervals
	defer cancel()
	for ctx.Err() == nil {
		if _, err := c.Write(straddling); err != nil {
			t.Fatalf("it was cut off: %v", err)
		}
		time.Sleep(20 * time.Millisecond)
	}
	if n := s.Totals().Connections; n != 1 {
		t.Errorf("%d connections are left", n)
	}
}
