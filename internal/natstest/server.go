// Package natstest runs real nats-servers for tests, and breaks them: processes that are killed, frozen, and given an older
// store, and connections that are cut, delayed and filtered.
package natstest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"

	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
	"github.com/caddy-broadcast/caddy-broadcast/internal/servertest"
)

var build = sync.OnceValues(func() (string, error) {
	// nats-server is a tool of go.mod and not a download: its version is pinned with ours, and who can run the tests can
	// build it. A process and not the server as a library, because only a process can be killed and stopped like one.
	// go tool -n builds the tool if it has to, in Go's cache, and prints where it is.
	out, err := exec.Command("go", "tool", "-n", "nats-server").Output()
	if err != nil {
		return "", fmt.Errorf("nats-server cannot be built: go tool -n nats-server: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
})

// Binary returns the path of nats-server. Where it cannot be built, the test is skipped, except in CI, where it fails.
func Binary(t testing.TB) string {
	t.Helper()
	path, err := build()
	if err != nil {
		// A newcomer without a network can run the other tests. In CI a test that does not run would look like one that
		// passes.
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	return path
}

// Server is a nats-server with JetStream.
type Server struct {
	Port  int
	Store string // the folder of JetStream

	*servertest.Process

	t    testing.TB
	conf string
}

// Start starts a server that ends with the test. more is added to its configuration, and options are how to connect to it.
// more may have users, so WaitReady may need options to log in.
func Start(t testing.TB, more string, options ...natsgo.Option) *Server {
	t.Helper()
	return newServer(t, freePorts(t, 1)[0]).start(more, options...)
}

func (s *Server) start(more string, options ...natsgo.Option) *Server {
	s.t.Helper()
	s.configure("", more)
	s.Run()
	s.WaitReady(options...)
	return s
}

// StartCluster starts n servers that form a cluster, and waits until it has elected its leader.
func StartCluster(t testing.TB, n int, more string) []*Server {
	t.Helper()
	ports := freePorts(t, 2*n)
	var told []string
	for _, port := range ports[n:] {
		told = append(told, strconv.Itoa(port))
	}
	return startCluster(t, ports[:n], ports[n:], told, more)
}

// StartRouted starts a cluster as StartCluster does. Before the port of each server for routes is a proxy, so that all routes
// go through one of the proxies.
func StartRouted(t testing.TB, n int, more string) ([]*Server, []*Proxy) {
	t.Helper()
	ports := freePorts(t, 2*n)
	var proxies []*Proxy
	var told []string
	for _, port := range ports[n:] {
		p := NewProxy(t, &Server{Port: port})
		proxies, told = append(proxies, p), append(told, p.Port())
	}
	return startCluster(t, ports[:n], ports[n:], told, more), proxies
}

// startCluster starts servers that listen for routes on ports, and tell each other that it is on those in told.
func startCluster(t testing.TB, clients, ports []int, told []string, more string) []*Server {
	t.Helper()
	var routes []string
	for _, port := range told {
		routes = append(routes, fmt.Sprintf("nats://127.0.0.1:%s", port))
	}
	servers := make([]*Server, len(ports))
	for i := range servers {
		servers[i] = newServer(t, clients[i])
		// Both names are needed: without them nats-server does not start JetStream in a cluster (server/jetstream.go,
		// v2.15.2: "jetstream cluster requires").
		servers[i].configure(fmt.Sprintf("cluster { name: c, listen: \"127.0.0.1:%d\", cluster_advertise: \"127.0.0.1:%s\", routes: [%s] }\nserver_name: n%d\n",
			ports[i], told[i], strings.Join(routes, ", "), i), more)
		servers[i].Run()
	}
	for _, s := range servers {
		s.WaitReady()
	}
	return servers
}

// URLs returns the addresses of servers.
func URLs(servers []*Server) []string {
	var urls []string
	for _, s := range servers {
		urls = append(urls, s.URL())
	}
	return urls
}

// newServer has a folder for each server, which outlives its process: Kill and Run have to find the same store.
func newServer(t testing.TB, port int) *Server {
	dir := t.TempDir()
	conf := filepath.Join(dir, "nats.conf")
	process := servertest.NewProcess(t, filepath.Join(dir, "log"), Binary(t), "-c", conf)
	return &Server{Process: process, t: t, Port: port, Store: filepath.Join(dir, "store"), conf: conf}
}

// configure writes the configuration to a file, as nats-server has no flags for some of it.
func (s *Server) configure(cluster, more string) {
	s.t.Helper()
	text := fmt.Sprintf("listen: \"127.0.0.1:%d\"\njetstream { store_dir: %q }\n%s%s\n", s.Port, s.Store, cluster, more)
	if err := os.WriteFile(s.conf, []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// Addr is the address of the server.
func (s *Server) Addr() string { return fmt.Sprintf("127.0.0.1:%d", s.Port) }

// URL is its address as a broker's option.
func (s *Server) URL() string { return "nats://" + s.Addr() }

// WaitReady waits until JetStream answers, which in a cluster means that it has a leader. Only the leader answers the request
// for the account's state, and without one nobody does or the answer is an error (jsAccountInfoRequest,
// server/jetstream_api.go, v2.15.2).
func (s *Server) WaitReady(options ...natsgo.Option) {
	s.t.Helper()
	s.WaitListening(s.Addr())
	deadline := time.Now().Add(servertest.Patience)
	for {
		conn, err := natsgo.Connect(s.URL(), options...)
		if err != nil && strings.Contains(strings.ToLower(err.Error()), "authorization violation") {
			return // it listens, and only its users may ask more
		}
		if err == nil {
			// A short wait, because a request that came when there was no leader is never answered.
			js, _ := conn.JetStream(natsgo.MaxWait(time.Second))
			_, err = js.AccountInfo()
			conn.Close()
		}
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("%s is not ready: %v\n%s", s.URL(), err, s.Tail())
		}
		time.Sleep(20 * time.Millisecond) // there is no event to wait for in another process
	}
}

// JetStream connects to the server until the end of a test, for what only an administrator does.
func (s *Server) JetStream(t testing.TB, options ...natsgo.Option) (*natsgo.Conn, natsgo.JetStreamContext) {
	t.Helper()
	conn, err := natsgo.Connect(s.URL(), options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	js, err := conn.JetStream()
	if err != nil {
		t.Fatal(err)
	}
	return conn, js
}

// LameDuck has the server send its clients to others, and then end. It closes its listener at once (lameDuckMode,
// server/server.go, v2.15.2).
func (s *Server) LameDuck() { s.Signal(syscall.SIGUSR2) }

// Snapshot copies the store of a server that does not run, and returns what puts the copy in the place of the store: what a
// machine does that has lost its last writes. nats-server syncs its files only every two minutes by default
// (defaultSyncInterval, server/filestore.go, v2.15.2), so such a machine really loses acked messages.
func (s *Server) Snapshot() (rollBack func()) {
	s.t.Helper()
	dir := filepath.Join(s.t.TempDir(), "copy")
	if err := os.CopyFS(dir, os.DirFS(s.Store)); err != nil {
		s.t.Fatal(err)
	}
	return func() {
		s.t.Helper()
		if err := os.RemoveAll(s.Store); err != nil {
			s.t.Fatal(err)
		}
		if err := os.CopyFS(s.Store, os.DirFS(dir)); err != nil {
			s.t.Fatal(err)
		}
	}
}

// freePorts returns ports that nobody listens on now.
func freePorts(t testing.TB, n int) []int {
	t.Helper()
	// nats-server can choose a port by itself (-1), but then it has another one after Kill and Run, and clients would not
	// find it again.
	var ports []int
	for range n {
		port, err := strconv.Atoi(caddytest.FreePort(t))
		if err != nil {
			t.Fatal(err)
		}
		ports = append(ports, port)
	}
	return ports
}
