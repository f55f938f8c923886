package cluster

import (
	"testing"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/internal/natstest"
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
	s := startRedis(t, redistest.Start(t, redistest.AOF), "durable")
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
		{"keys", testKeys},
		{"wrong prefix", testWrongPrefix},
		{"node killed", testNodeKilled},
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
	do   func(s *redistest.Server, p *servertest.Proxy)
}

// away is how long a server is away.
const away = 700 * time.Millisecond

// kept are faults in which nothing is lost that was acknowledged: no client is told of a gap.
var kept = []fault{
	{"killed", func(s *redistest.Server, _ *servertest.Proxy) {
		s.Kill()
		time.Sleep(away)
		s.Run()
	}},
	{"frozen", func(s *redistest.Server, _ *servertest.Proxy) {
		s.Freeze()
		time.Sleep(4 * time.Second) // longer than nodes wait for a sign of life
		s.Thaw()
	}},
	{"asleep", func(s *redistest.Server, _ *servertest.Proxy) { s.Do("DEBUG", "SLEEP", "1.5") }},
	{"scripts flushed", func(s *redistest.Server, _ *servertest.Proxy) {
		for range 20 {
			s.Do("SCRIPT", "FLUSH", "SYNC")
		}
	}},
	{"connections killed", func(s *redistest.Server, _ *servertest.Proxy) {
		for range 5 {
			s.Do("CLIENT", "KILL", "TYPE", "pubsub")
			time.Sleep(20 * time.Millisecond) // so that some publish again
			s.Do("CLIENT", "KILL", "TYPE", "normal")
			time.Sleep(20 * time.Millisecond)
		}
	}},
	{"output buffer", func(s *redistest.Server, p *servertest.Proxy) {
		p.Hold()
		time.Sleep(100 * time.Millisecond) // for the sockets to fill
		s.Do("CONFIG", "SET", "client-output-buffer-limit", "pubsub 4kb 4kb 1")
		time.Sleep(time.Second)
		s.Do("CONFIG", "SET", "client-output-buffer-limit", "pubsub 32mb 8mb 60")
		p.Pass()
	}},
}

// forgotten are faults in which the server loses what it has acknowledged: every client that misses something is told.
var forgotten = []fault{
	kept[0],
	{"flushed", func(s *redistest.Server, _ *servertest.Proxy) { s.Do("FLUSHALL") }},
	{"evicted", func(s *redistest.Server, _ *servertest.Proxy) { s.Do("DEL", "{bc:0}:m") }},
}

// TestRedisFaults: clients move between three nodes while something happens to the server. No position is given to two
// messages, and each client gets everything, or is told of a gap.
func TestRedisFaults(t *testing.T) {
	t.Parallel()
	run := func(name string, server *redistest.Server, options string, faults []fault, forgets bool) {
		t.Run(name, func(t *testing.T) {
			s := startRedis(t, server, options)
			for _, f := range faults {
				t.Run(f.name, func(t *testing.T) {
					h := newHop(s.in(t).nodes)
					h.goal, h.forgets = int64(rounds(12_000, 100_000)), forgets
					h.run(t, func(func(int)) { f.do(server, s.proxies[0]) })
				})
			}
		})
	}
	run("kept", redistest.Start(t, redistest.AOF), "durable", kept, false)
	run("forgotten", redistest.Start(t), "", forgotten, true)
}

// TestRedisFailover: a replica that lacks the last messages takes over. They are lost, and the next ones have positions of
// another epoch.
func TestRedisFailover(t *testing.T) {
	natstest.Thorough(t)
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
