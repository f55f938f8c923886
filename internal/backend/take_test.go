package backend

import (
	"bytes"
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

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

// TestLoggedChannel: the log has the beginning of a channel's name, which may be as long as a message.
func TestLoggedChannel(t *testing.T) {
	core, logs := observer.New(zapcore.WarnLevel)
	defer func(before func() *zap.Logger) { logger = before }(logger)
	logger = func() *zap.Logger { return zap.New(core) }
	newTaker(t, Queue{}).takeSource(strings.Repeat("é\xff", 1<<19), nil)
	if all := logs.All(); len(all) != 1 || len(all[0].ContextMap()["channel"].(string)) > 1024 {
		t.Errorf("%d messages, or a long one", len(all))
	}
}

// TestBatchBytes: what is kept until it is published does not grow with what small pickles become.
func TestBatchBytes(t *testing.T) {
	b := batch{taker: newTaker(t, Queue{})}
	// A dict of the method, the event, and the members 0 to 5, each of which is a list of ten times the one before. The last is data.
	data := "\x80\x04}(\x8c\x06method\x8c\x04emit\x8c\x05event\x8c\x01e\x8c\x010\x8c\x04abcd\x94"
	for i, key := range []string{"\x011", "\x012", "\x013", "\x014", "\x04data"} {
		data += "\x8c" + key + "](" + strings.Repeat("h"+string(rune(i)), 10) + "e\x94"
	}
	data += "u."
	for range 5 {
		b.add("socketio", []byte(data))
		if b.size > maxBatchBytes {
			t.Fatalf("%d messages with %d bytes are kept", len(b.messages), b.size)
		}
	}
	b.publish()
	if m := b.taker.Stats().Messages; m["ok"] != 5 {
		t.Error(m)
	}
}
