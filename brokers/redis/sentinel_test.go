package redis

import (
	"testing"

	"github.com/caddy-broadcast/caddy-broadcast/internal/redistest"
)

// A Sentinel that names a server which is a replica now does not keep a node from the one that is the master.
func TestSentinelOutOfDate(t *testing.T) {
	old := redistest.Start(t)
	master := redistest.StartReplica(t, old)
	master.Do("REPLICAOF", "NO", "ONE")
	old.Do("REPLICAOF", "127.0.0.1", master.Port)
	old.WaitInfo("replication", "master_link_status:up")
	c := testConfig(t, redistest.StartSentinel(t, old).Addr())
	c.Master = redistest.Master
	n := dialBroken(t, c, keepAll)
	awaitProblem(t, n, "READONLY")
	c.Servers = append(c.Servers, redistest.StartSentinel(t, master).Addr())
	n = dialTest(t, c)
	n.MustPublish(t, entry("a", "1"))
	if n.Status().Server != master.Addr() {
		t.Errorf("it uses %s", n.Status().Server)
	}
	// The old one comes back as the master for as long as nobody has told it.
	master.Freeze()
	n.Await(t, "that it is broken", func() bool { return n.Down })
	old.Do("REPLICAOF", "NO", "ONE")
	n.Await(t, "the old one, in another epoch", func() bool { return len(n.Epochs) == 2 && !n.Down })
	master.Thaw()
	old.Do("REPLICAOF", "127.0.0.1", master.Port)
	// It was only away, so it has lost nothing and goes on where it was.
	n.Await(t, "the new one", func() bool { return len(n.Epochs) == 3 && !n.Down })
	if p := n.MustPublish(t, entry("a", "2")); p[0].Seq != 2 || n.Epochs[0] != n.Epochs[2] || n.Epochs[0] == n.Epochs[1] {
		t.Errorf("%v, epochs %v", p, n.Epochs)
	}
}

// A name that no Sentinel has is said.
func TestSentinelWithoutMaster(t *testing.T) {
	c := testConfig(t, redistest.StartSentinel(t, redistest.Start(t)).Addr())
	c.Master = "other"
	awaitProblem(t, dialBroken(t, c, keepAll), `no Sentinel knows "other"`)
}
