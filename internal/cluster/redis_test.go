package cluster

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/internal/redistest"
	"github.com/caddy-broadcast/caddy-broadcast/internal/servertest"
)

// redis returns the options of a node that uses this server.
func redis(options, url string) string { return "broker redis " + url + " {\n" + options + "\n}" }

// startRedis starts three nodes on one server, each with a proxy between.
func startRedis(t *testing.T, server *redistest.Server, options string) *single {
	t.Helper()
	s := &single{server: server, other: "prefix other"}
	s.options = func(more, addr string) string { return redis(options+"\n"+more, "redis://"+addr) }
	for range 3 {
		s.proxies = append(s.proxies, redistest.NewProxy(t, server))
	}
	s.startNodes(t)
	return s
}

// TestRedis is what fails with one server that keeps what it has acknowledged. The subtests share it and the nodes, and each
// leaves them in order.
func TestRedis(t *testing.T) {
	t.Parallel()
	s := startRedis(t, redistest.Start(t, redistest.AOF, "client-output-buffer-limit pubsub 4mb 4mb 1"), "durable")
	for _, row := range []struct {
		name string
		test func(*testing.T, *single)
	}{
		{"unreachable", testUnreachable},
		{"killed", testKilled},
		{"killed often", testTruthOfOne},
		{"slow", testSlow},
		{"lists", testLists},
		{"kicks", testKicks},
		{"subscriptions", testSubscriptions},
		{"keys", testKeys},
		{"wrong prefix", testWrongPrefix},
		{"node killed", testNodeKilled},
		{"presence", testPresence},
		{"conflate", testConflate},
		{"Socket.IO", testSocketIO},
		{"kept", testKept}, // it leaves a node behind that is still asked for a while
		{"node cut off", testNodeCutOff},
		{"node paused", testNodePaused},
		{"reload", testReload},
	} {
		t.Run(row.name, func(t *testing.T) { row.test(t, s.in(t)) })
	}
}

// fault is something that happens to a server while clients hop.
type fault struct {
	name string
	do   func(s *redistest.Server)
	cuts bool // nodes have to catch up
}

// kept are faults, besides kill -9, which TestHop has, in which nothing is lost that was acknowledged: no client is told of a gap.
var kept = []fault{
	{"frozen", func(s *redistest.Server) {
		s.Freeze()
		time.Sleep(4 * time.Second) // longer than nodes wait for a sign of life
		s.Thaw()
	}, true},
	{"asleep", func(s *redistest.Server) { s.Do("DEBUG", "SLEEP", "1.5") }, false},
	{"scripts flushed", func(s *redistest.Server) {
		for range 20 {
			s.Do("SCRIPT", "FLUSH", "SYNC")
		}
	}, false},
	{"connections killed", func(s *redistest.Server) {
		for range 5 {
			s.Do("CLIENT", "KILL", "TYPE", "pubsub")
			time.Sleep(20 * time.Millisecond) // so that some publish again
			s.Do("CLIENT", "KILL", "TYPE", "normal")
			time.Sleep(20 * time.Millisecond)
		}
	}, true},
	{"output buffer", func(s *redistest.Server) {
		s.Do("CONFIG", "SET", "client-output-buffer-limit", "pubsub 64kb 64kb 1")
		for i := range hopChannels { // nodes take no notice of what is not theirs
			s.Do("PUBLISH", fmt.Sprint("{bc:0}:c:c", i), strings.Repeat("x", 1<<20))
		}
		s.Do("CONFIG", "SET", "client-output-buffer-limit", "pubsub 32mb 8mb 60")
	}, true},
}

// forgotten are faults in which the server loses what it has acknowledged: every client that misses something is told.
var forgotten = []fault{
	{"flushed", func(s *redistest.Server) { s.Do("FLUSHALL") }, false},
	{"evicted", func(s *redistest.Server) { s.Do("DEL", "{bc:0}:m") }, false},
}

// TestRedisFaults: clients move between three nodes while something happens to the server. No position is given to two
// messages, and each client gets everything, or is told of a gap.
func TestRedisFaults(t *testing.T) {
	t.Parallel()
	run := func(name string, server *redistest.Server, options string, faults []fault, forgets bool) {
		t.Run(name, func(t *testing.T) {
			s := startRedis(t, server, options)
			for _, f := range faults {
				t.Run(f.name, func(t *testing.T) { s.in(t).hop(t, server, f, forgets) })
			}
		})
	}
	run("kept", redistest.Start(t, redistest.AOF), "durable", kept, false)
	run("forgotten", redistest.Start(t), "", forgotten, true)
}

// TestValkey: the same with Valkey.
func TestValkey(t *testing.T) {
	servertest.Thorough(t)
	t.Parallel()
	server := redistest.StartProgram(t, redistest.Valkey)
	s := startRedis(t, server, "")
	for _, f := range append(kept, forgotten...) {
		t.Run(f.name, func(t *testing.T) { s.in(t).hop(t, server, f, true) })
	}
}

// hop has clients move while a fault happens.
func (s *single) hop(t *testing.T, server *redistest.Server, f fault, forgets bool) {
	h := newHop(s.nodes)
	h.goal, h.faults, h.forgets = int64(rounds(8_000, 100_000)), rounds(1, 3), forgets
	var repairs []float64
	for _, n := range s.nodes {
		repairs = append(repairs, n.metric("broker_repairs_total"))
	}
	h.run(t, func(func(int)) { f.do(server) })
	for i, n := range s.nodes {
		if n.metric("broker_repairs_total") == repairs[i] && f.cuts {
			t.Errorf("node %s did not have to catch up", n.name)
		}
	}
}

// TestRedisFailover: a replica that lacks the last messages takes over. They are lost, and the next ones have positions of
// another epoch.
func TestRedisFailover(t *testing.T) {
	servertest.Thorough(t)
	t.Parallel()
	g := redistest.StartGroup(t, 1)
	h := newHop(startNodes(t, 3, func(int) string { return redis("", g.URL()) }))
	h.goal, h.faults, h.forgets = int64(rounds(12_000, 100_000)), 1, true
	h.run(t, func(goOn func(int)) {
		g.Lag(g.Servers[1])
		goOn(8) // what the replica will not have
		g.Servers[0].Kill()
		g.Servers[1].Thaw()
		g.WaitMaster(g.Servers[0])
	})
}

// TestRedisReplicas: with replicas 1, the replica that takes over has every message that was acknowledged.
func TestRedisReplicas(t *testing.T) {
	servertest.Thorough(t)
	t.Parallel()
	g := redistest.StartGroup(t, 1)
	h := newHop(startNodes(t, 3, func(int) string { return redis("replicas 1\npublish_timeout 2s", g.URL()) }))
	h.goal, h.faults, h.forgets = int64(rounds(12_000, 100_000)), 1, true
	h.run(t, func(goOn func(int)) {
		old, now := g.Servers[0], g.Servers[1]
		old.Kill()
		g.WaitMaster(old)
		old.Run()
		old.WaitReady()
		old.Do("REPLICAOF", "127.0.0.1", now.Port) // Sentinels do that too, ten seconds later
	})
	kept := ""
	now := g.Servers[1]
	for key := range strings.FieldsSeq(strings.Trim(now.Do("KEYS", "{bc:0}:h:*"), "[]")) {
		kept += now.Do("XRANGE", key, "-", "+")
	}
	for key := range h.acked {
		_, data, _ := strings.Cut(key, " ")
		if !strings.Contains(kept, data+"]") {
			t.Errorf("%q was acknowledged, and the replica does not have it", key)
		}
	}
}
