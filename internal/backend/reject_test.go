package backend

import (
	"fmt"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
)

// TestRejectLogs: people are told of the first of many that are dropped for one reason, and see the others if they look for them.
func TestRejectLogs(t *testing.T) {
	core, seen := observer.New(zapcore.DebugLevel)
	before := logger
	defer func() { logger = before }()
	logger = func() *zap.Logger { return zap.New(core) }
	h := hub.New(hub.Config{})
	defer h.Close(hub.ReasonRestart, "", 0, 0)
	q, err := new(Queue).settings()
	if err != nil {
		t.Fatal(err)
	}
	x := &taker{New(h), q}
	for _, channel := range []string{"one", "two"} {
		if ms, k := x.messages(nil, channel, []byte("x")); ms != nil || k != nil {
			t.Error(ms, k)
		}
	}
	x.TooLong("socketio", 3, 2)
	var got []string
	for _, e := range seen.All() {
		got = append(got, fmt.Sprint(e.Level, " ", e.ContextMap()["result"], " ", e.ContextMap()["channel"]))
	}
	if want := "[warn channel one debug channel two warn invalid socketio]"; fmt.Sprint(got) != want {
		t.Errorf("%v, want %s", got, want)
	}
}
