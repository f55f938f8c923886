package nats

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
	"github.com/caddy-broadcast/caddy-broadcast/internal/natstest"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// TestLoginRefused: people see why there is no connection, also at the first one, of which the client library tells nobody.
func TestLoginRefused(t *testing.T) {
	c := testConfig(t, natstest.Start(t, `authorization: { token: "secret" }`).URL(), 1)
	c.Token = "wrong"
	n := dialBroken(t, c, keepAll)
	for deadline := time.Now().Add(patience); !strings.Contains(n.Status().Problem, "Authorization Violation"); {
		if time.Now().After(deadline) {
			t.Fatalf("the problem is %q", n.Status().Problem)
		}
		time.Sleep(time.Millisecond) // Status has no event
	}
}

// TestOptionsDiffer: a node that changes the stream of another one says what differed.
func TestOptionsDiffer(t *testing.T) {
	c := testConfig(t, natstest.Start(t, "").URL(), 1)
	core, logs := observer.New(zap.WarnLevel)
	c.Logger = func() *zap.Logger { return zap.New(core) }
	dialWith(t, c, broker.Retention{Messages: 200})
	if n := logs.Len(); n != 0 {
		t.Fatalf("the first node logged %v", logs.All())
	}
	dialWith(t, c, broker.Retention{Messages: 100})
	if all := logs.All(); len(all) != 1 || !strings.Contains(fmt.Sprint(all[0].ContextMap()), "max_msgs_per_subject is 201 and has to be 101") {
		t.Errorf("the second node logged %v", all)
	}
}
