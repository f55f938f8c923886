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
