//go:build linux

package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// deployment is one way to run Caddys: one on its own, or three that share a log. All of it runs on this machine, over
// loopback. So nothing of a real network's latency is in the figures, and all processes compete for the same cores.
type deployment struct {
	name    string
	nodes   []*server
	brokers []*server
	proxies []net.Listener
}

// Names of deployments.
const (
	alone        = "no broker"
	r1           = "NATS, replicas 1"
	r3           = "NATS, replicas 3"
	redisOff     = "Redis, AOF off"
	redisSecond  = "Redis, AOF everysec"
	redisDurable = "Redis, durable" // AOF always, as the option needs it
)

// natsReplicas is how many nats-servers a deployment has.
var natsReplicas = map[string]int{r1: 1, r3: 3}

// appendfsync is how often the redis-server of a deployment forces the file that it adds commands to (AOF) to the disk. Without
// a value there is no such file.
var appendfsync = map[string]string{redisOff: "", redisSecond: "everysec", redisDurable: "always"}

func isRedis(name string) bool {
	_, ok := appendfsync[name]
	return ok
}

// redisServer is not built here: every package manager has it.
const redisServer = "redis-server"

// Three are the least for replicas 3, and for a cluster of nats-servers that goes on without one.
const clusterNodes = 3

// natsServer builds nats-server, which is a tool of go.mod, and returns where it is. Go keeps it in its cache.
func natsServer() (string, error) {
	out, err := exec.Command("go", "tool", "-n", "nats-server").Output()
	if err != nil {
		return "", fmt.Errorf("nats-server cannot be built: go tool -n nats-server: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}

// haveBroker reports whether there are the programs that a deployment needs. If not, it says that what they are for is
// skipped, except in CI, where it returns an error.
func haveBroker(what, deployment string) (ok bool, err error) {
	if isRedis(deployment) {
		_, err = exec.LookPath(redisServer)
	} else {
		_, err = natsServer()
	}
	if err != nil && os.Getenv("CI") == "" {
		fmt.Printf("\n%s is skipped: %v\n", what, err)
		return false, nil
	}
	return err == nil, err
}

// deploy starts a deployment on 60 ports from this one on. Its files are in a folder of its own. It adds global options to
// those that name the broker, and all that nodes and brokers send each other comes late by a time. On an error it stops what
// it has started.
func deploy(dir, name string, port int, more string, late time.Duration) (d *deployment, err error) {
	d = &deployment{name: name}
	defer func() {
		if err != nil {
			d.stop()
		}
	}()
	// The program is built once, in the bench's folder, and not in each of these.
	if _, err = build(dir, "cmd/caddy"); err != nil {
		return d, err
	}
	options, nodes := "", 1
	if name != alone {
		if err = d.startBroker(dir, port+30); err != nil {
			return d, err
		}
		var addrs []string
		if addrs, err = d.brokersAway(port+50, late); err != nil {
			return d, err
		}
		options, nodes = fmt.Sprintf("broadcast {\n %s\n broker %s\n }", more, d.brokerOption(addrs)), clusterNodes
	}
	for i := range nodes {
		s, err := startCaddy(dir, port+10*i, options)
		if err != nil {
			return d, err
		}
		d.nodes = append(d.nodes, s)
		if err := awaitNode(s); err != nil {
			return d, err
		}
	}
	d.nodes[0].others = d.nodes[1:]
	return d, nil
}

// awaitNode waits until a node gives connections a position, for which it must hear from the log. Three nats-servers take
// some seconds to elect a leader.
func awaitNode(s *server) (err error) {
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		var f *fleet
		if f, err = dialAll(s.target, 1, 1, 0); err == nil {
			f.close()
			return nil
		}
	}
	return fmt.Errorf("a node does not become ready: %w; its output: %.300s", err, s.out)
}

// startBroker starts the servers of the log.
func (d *deployment) startBroker(dir string, port int) error {
	if isRedis(d.name) {
		return d.startRedis(filepath.Join(dir, fmt.Sprint("redis", port)), port)
	}
	return d.startNATS(filepath.Join(dir, fmt.Sprint("nats", port)), natsReplicas[d.name], port)
}

// brokersAway returns where nodes find the brokers: at their own addresses, or at those of proxies that pass everything on
// late.
func (d *deployment) brokersAway(port int, late time.Duration) (addrs []string, err error) {
	for i, b := range d.brokers {
		addr := b.addr
		if late > 0 {
			addr = address(port + i)
			l, err := delay(addr, b.addr, late)
			if err != nil {
				return nil, err
			}
			d.proxies = append(d.proxies, l)
		}
		addrs = append(addrs, addr)
	}
	return addrs, nil
}

// brokerOption returns the value of the option broker.
func (d *deployment) brokerOption(addrs []string) string {
	switch {
	case d.name == redisDurable:
		return fmt.Sprintf("redis redis://%s {\n durable\n }", addrs[0])
	case isRedis(d.name):
		return "redis redis://" + addrs[0]
	}
	return fmt.Sprintf("nats nats://%s {\n replicas %d\n }", strings.Join(addrs, " nats://"), len(addrs))
}

// startNATS starts nats-servers with JetStream, as they are without further options: they store in files. They do so on
// purpose, because a store in memory would be faster than what a reader of the figures will run.
func (d *deployment) startNATS(dir string, n, port int) error {
	bin, err := natsServer()
	if err != nil {
		return err
	}
	var routes []string
	for i := range n {
		routes = append(routes, fmt.Sprintf("%q", "nats://"+address(port+10+i)))
	}
	for i := range n {
		home := filepath.Join(dir, fmt.Sprint(i))
		if err := os.MkdirAll(home, 0o700); err != nil {
			return err
		}
		config := fmt.Sprintf("listen: %q\nserver_name: %s\njetstream { store_dir: %q }\n", address(port+i), natsName(i), home)
		if n > 1 {
			config += fmt.Sprintf("cluster { name: bench, listen: %q, routes: [%s] }\n", address(port+10+i), strings.Join(routes, ", "))
		}
		file := filepath.Join(home, "nats.conf")
		if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
			return err
		}
		s, err := run(&server{target: target{addr: address(port + i)}}, home, bin, "-c", file)
		if err != nil {
			return fmt.Errorf("nats-server: %w", err)
		}
		d.brokers = append(d.brokers, s)
	}
	return nil
}

// natsName is how a nats-server calls itself to the others.
func natsName(i int) string { return fmt.Sprint("n", i) }

// startRedis starts a redis-server. It writes no snapshots (RDB), which would take CPU time whenever it pleases.
func (d *deployment) startRedis(dir string, port int) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	args := []string{"--port", fmt.Sprint(port), "--bind", "127.0.0.1", "--dir", dir, "--save", ""}
	if sync := appendfsync[d.name]; sync != "" {
		args = append(args, "--appendonly", "yes", "--appendfsync", sync)
	}
	s, err := run(&server{target: target{addr: address(port)}}, dir, redisServer, args...)
	if err != nil {
		return fmt.Errorf("%s: %w", redisServer, err)
	}
	d.brokers = append(d.brokers, s)
	return nil
}

// The Caddys come first, so that none of them reconnects to servers that are going away.
func (d *deployment) stop() {
	for _, s := range d.nodes {
		s.stop()
	}
	for _, s := range d.brokers {
		s.stop()
	}
	for _, l := range d.proxies {
		l.Close()
	}
}

// broker returns what the brokers have used.
func (d *deployment) broker() usage { return usageOf(d.brokers) }

// usageOf returns what servers have used.
func usageOf(ss []*server) (u usage) {
	for _, s := range ss {
		one := s.usage()
		u.cpu += one.cpu
		u.rss += one.rss
	}
	return u
}

// layout is which nodes the subscribers are on. Messages are published on the first node, except by room. It decides whether
// a delivery crosses a node: with here the message still goes to the broker and back, and elsewhere on to another node.
type layout string

const (
	here      layout = "all on the publisher's node"
	elsewhere layout = "all on another node"
	spread    layout = "on all nodes"
	byRoom    layout = "each room on one node"
)

// place returns the server to measure: the first node, with the subscribers as the layout has them, in channels whose names
// begin with this prefix. No other run has them, so no run finds channels of another open.
func (d *deployment) place(l layout, prefix string) *server {
	s := *d.nodes[0]
	s.path = func(room int) string { return fmt.Sprintf("/ws/%s-%d", prefix, room) }
	s.publish = s.path
	if len(d.nodes) == 1 {
		return &s
	}
	switch l {
	case elsewhere:
		s.spread = []string{d.nodes[1].addr}
	case spread, byRoom:
		for _, n := range d.nodes {
			s.spread = append(s.spread, n.addr)
		}
		s.byRoom = l == byRoom
	}
	return &s
}
