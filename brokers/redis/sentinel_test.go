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
	n.publish(t, entry("a", "1"))
	if n.Status().Server != master.Addr() {
		t.Errorf("it uses %s", n.Status().Server)
	}
	// The old one comes back as the master for as long as nobody has told it.
	master.Freeze()
	n.await(t, "that it is broken", func() bool { return n.broken })
	old.Do("REPLICAOF", "NO", "ONE")
	n.await(t, "the old one, in another epoch", func() bool { return len(n.epochs) == 2 && !n.broken })
	master.Thaw()
	old.Do("REPLICAOF", "127.0.0.1", master.Port)
	// It was only away, so it has lost nothing and goes on where it was.
	n.await(t, "the new one", func() bool { return len(n.epochs) == 3 && !n.broken })
	if p := n.publish(t, entry("a", "2")); p[0].Seq != 2 || n.epochs[0] != n.epochs[2] || n.epochs[0] == n.epochs[1] {
		t.Errorf("%v, epochs %v", p, n.epochs)
	}
}

// A name that no Sentinel has is said.
func TestSentinelWithoutMaster(t *testing.T) {
	c := testConfig(t, redistest.StartSentinel(t, redistest.Start(t)).Addr())
	c.Master = "other"
	awaitProblem(t, dialBroken(t, c, keepAll), `no Sentinel knows "other"`)
}
