package brokered

import (
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/caddy-broadcast/caddy-broadcast/broker/brokertest"
	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
)

// TestReminder: the log says that a broker was never there, says each minute that it still is not, and then stops.
func TestReminder(t *testing.T) {
	core, logs := observer.New(zapcore.WarnLevel)
	before := logger
	defer func() { logger = before }()
	logger = func() *zap.Logger { return zap.New(core) }
	synctest.Test(t, func(t *testing.T) {
		expect := func(after time.Duration, want int) {
			t.Helper()
			time.Sleep(after) // the bubble's time
			synctest.Wait()
			if n := logs.Len(); n != want {
				t.Fatalf("the log has %d warnings, want %d: %v", n, want, logs.All())
			}
		}
		m := brokertest.NewMemory(brokertest.MemoryConfig{})
		defer m.Close()
		m.Stop()
		h := hub.New(hub.Config{})
		c := New(h)
		defer h.Close(hub.ReasonRestart, "", 0, time.Second)
		defer c.Close()
		if err := c.Use(&Settings{Broker: m.Broker(), key: "memory"}); err != nil {
			t.Fatal(err)
		}
		expect(firstReminder-time.Millisecond, 0)
		expect(time.Millisecond, 1)
		expect(reminderInterval, 2)
		m.Start()
		expect(2*reminderInterval, 2)
		m.Stop()
		expect(0, 3) // Broken says it at once
		if err := c.Use(&Settings{}); err != nil {
			t.Fatal(err)
		}
		expect(2*reminderInterval, 3)
	})
}
