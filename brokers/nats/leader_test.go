package nats

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/internal/natstest"
	natsgo "github.com/nats-io/nats.go"
)

// The leader stores an entry, and is gone before it has republished it. Nothing else is published on the channel, so only
// the election shows that something may be missing.
func TestLeaderChanges(t *testing.T) {
	for name, kill := range map[string]bool{"steps down": false, "is killed": true} {
		t.Run(name, func(t *testing.T) {
			servers := natstest.StartCluster(t, 3, "")
			from := dialTest(t, testConfig(t, strings.Join(natstest.URLs(servers), ","), 3))
			conn, err := natsgo.Connect(strings.Join(natstest.URLs(servers), ","))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			leader, follower := leaderOf(t, conn, servers)
			proxy := natstest.NewProxy(t, follower)
			n := dialTest(t, testConfig(t, proxy.URL(), 3))
			n.MustOpen(t, "a")
			proxy.Drop(func(subject string, payload []byte) bool { return subject == "bc.l.a" })
			from.MustPublish(t, entry("a", "stored"))
			if kill {
				leader.Kill()
			} else if _, err := conn.Request("$JS.API.STREAM.LEADER.STEPDOWN.BROADCAST", nil, patience); err != nil {
				t.Fatal(err)
			}
			n.Await(t, "the entry", func() bool { return slices.Contains(n.data("a"), "stored") && !n.Down })
			status := n.Status()
			if status.Repairs["leader"]+status.Repairs["tick"] == 0 || !kill && status.Repairs["leader"] == 0 || status.Repairs["audit"] > 0 {
				t.Errorf("%+v", status)
			}
		})
	}
}

func leaderOf(t *testing.T, conn *natsgo.Conn, servers []*natstest.Server) (leader, follower *natstest.Server) {
	t.Helper()
	m, err := conn.Request("$JS.API.STREAM.INFO.BROADCAST", nil, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	var info struct {
		Cluster struct{ Leader string }
	}
	if err := json.Unmarshal(m.Data, &info); err != nil {
		t.Fatal(err)
	}
	for i, s := range servers {
		if info.Cluster.Leader == fmt.Sprint("n", i) {
			leader = s
		} else {
			follower = s
		}
	}
	return leader, follower
}
