package backend

import (
	"bytes"
	"testing"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
)

// newTaker returns one with these options and a hub of its own.
func newTaker(t *testing.T, q Queue) *taker {
	t.Helper()
	h := hub.New(hub.Config{})
	t.Cleanup(func() { h.Close(hub.ReasonRestart, "", 0, 0) })
	settings, err := q.settings()
	if err != nil {
		t.Fatal(err)
	}
	return &taker{New(h), settings}
}

// TestPlainLength: a plain message is no longer than others may be. A Redis that is subscribed to would let 512 MiB pass.
func TestPlainLength(t *testing.T) {
	take := newTaker(t, Queue{Publish: []string{"room:*"}})
	take.takeSource("room:1", bytes.Repeat([]byte("x"), maxMessage))
	take.takeSource("room:1", bytes.Repeat([]byte("x"), maxMessage+1))
	if m := take.Stats().Messages; m["ok"] != 1 || m["invalid"] != 1 {
		t.Error(m)
	}
}
