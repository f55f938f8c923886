package caddytest

import (
	"io"
	"testing"

	"github.com/gobwas/ws"
)

// ReadFrame reads a WebSocket frame that a server sent. It is for frames that are known to be small.
func ReadFrame(t testing.TB, r io.Reader) (ws.Header, []byte) {
	t.Helper()
	h, err := ws.ReadHeader(r)
	if err != nil {
		t.Fatal(err)
	}
	payload := make([]byte, min(h.Length, 1<<20))
	if _, err := io.ReadFull(r, payload); err != nil {
		t.Fatal(err)
	}
	return h, payload
}
