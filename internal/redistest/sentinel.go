package redistest

import (
	"fmt"
	"strings"
	"testing"
)

// Master is the name that the Sentinels have for the master.
const Master = "mymaster"

// Group is a server with replicas, and the Sentinels that promote one of them when the server is gone.
type Group struct {
	Servers   []*Server // the first one is the master at the beginning
	Sentinels []*Server

	t testing.TB
}

// StartGroup starts a server with some replicas, and three Sentinels that know them. config is added to the configuration
// of the servers.
func StartGroup(t testing.TB, replicas int, config ...string) *Group {
	t.Helper()
	g := &Group{t: t, Servers: []*Server{Start(t, config...)}}
	for range replicas {
		g.Servers = append(g.Servers, StartReplica(t, g.Servers[0], config...))
	}
	const sentinels = 3
	for range sentinels {
		g.Sentinels = append(g.Sentinels, StartSentinel(t, g.Servers[0]))
	}
	// Sentinels find each other by messages that they send every two seconds. Before that there is no majority.
	for _, s := range g.Sentinels {
		s.waitMaster(fmt.Sprintf("num-slaves=%d", replicas), fmt.Sprintf("num-other-sentinels=%d", sentinels-1), "flags=master")
	}
	return g
}

// StartSentinel starts one Sentinel of a server. Two are needed to promote a replica.
func StartSentinel(t testing.TB, master *Server, config ...string) *Server {
	t.Helper()
	s := prepare(t, Redis, "--sentinel")
	// Quick: a second and a half until there is another master, and not half a minute.
	s.configure(append([]string{
		"sentinel monitor " + Master + " 127.0.0.1 " + master.Port + " 2",
		"sentinel down-after-milliseconds " + Master + " 500",
		"sentinel failover-timeout " + Master + " 4000",
	}, config...)...)
	s.Run()
	s.WaitReady()
	return s
}

// waitMaster waits until a Sentinel says all of this of the master.
func (s *Server) waitMaster(want ...string) {
	s.t.Helper()
	s.wait(strings.Join(want, " "), func() (string, bool) {
		fields, err := s.try("SENTINEL", "MASTER", Master).AsStrMap()
		if err != nil {
			return err.Error(), false
		}
		for _, w := range want {
			name, value, _ := strings.Cut(w, "=")
			if fields[name] != value {
				return name + " is " + fields[name], false
			}
		}
		return "", true
	})
}

// Master returns the server that most Sentinels consider the master.
func (g *Group) Master() *Server {
	g.t.Helper()
	votes := map[string]int{}
	for _, s := range g.Sentinels {
		if addr, err := s.try("SENTINEL", "GET-MASTER-ADDR-BY-NAME", Master).AsStrSlice(); err == nil && len(addr) == 2 {
			votes[addr[1]]++
		}
	}
	for _, s := range g.Servers {
		if votes[s.Port] > len(g.Sentinels)/2 {
			return s
		}
	}
	return nil
}

// WaitMaster waits until the master is another server than not, and returns it.
func (g *Group) WaitMaster(not *Server) (master *Server) {
	g.t.Helper()
	g.Sentinels[0].wait("told of another master", func() (string, bool) {
		master = g.Master()
		return fmt.Sprint("votes for ", master), master != nil && master != not
	})
	master.WaitInfo("replication", "role:master")
	return master
}

// Lag freezes a replica, and makes sure that it receives nothing of what is written from now on, until it is thawed and
// connects again. Freezing alone is not enough, because the kernel still accepts what the master sends.
func (g *Group) Lag(replica *Server) {
	g.t.Helper()
	replica.Freeze()
	g.Master().Do("CLIENT", "KILL", "TYPE", "replica")
}

// Addrs returns the addresses of the Sentinels, separated by commas.
func (g *Group) Addrs() string {
	var addrs []string
	for _, s := range g.Sentinels {
		addrs = append(addrs, s.Addr())
	}
	return strings.Join(addrs, ",")
}

// URL returns the value of a broker's option for this group.
func (g *Group) URL() string { return "redis+sentinel://" + g.Addrs() + "/" + Master }
