// Package cluster tests several Caddys that share a log, from the outside: real Caddys, real nats-servers, and what happens
// to both. Its tests are the rows of the table "What happens when something fails" in docs/scale.md.
package cluster

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	_ "github.com/caddy-broadcast/caddy-broadcast"
	_ "github.com/caddy-broadcast/caddy-broadcast/brokers/nats"
	_ "github.com/caddy-broadcast/caddy-broadcast/brokers/redis"
	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
	"github.com/caddy-broadcast/caddy-broadcast/internal/servertest"
)

func TestMain(m *testing.M) { os.Exit(caddytest.Main(m)) }

// patience is how long a test waits for what has to come, far beyond what a slow machine needs.
const patience = 60 * time.Second

// node is a Caddy.
type node struct {
	*caddytest.Server
	name  string
	file  string // its Caddyfile
	cmd   *exec.Cmd
	ended chan error
}

type totals = caddytest.Totals

// In returns the node for a subtest.
func (n *node) In(t *testing.T) *node {
	sub := *n
	sub.Server = n.Server.In(t)
	return &sub
}

const caddyfile = `{
	admin ADMIN
	persist_config off
	log {
		output file LOG
		exclude admin.api
	}
	broadcast {
		history 20000
		node NAME
		BROKER
	}
}
http://ADDR {
	broadcast /live/* {path.1} {
		join *
		max_message 2MiB
		max_backlog 64MiB
		user {query.user}
	}
	broadcast /present/* {path.1} {
		user {query.user}
		presence 1s
	}
	broadcast /feed/* {path.1} {
		subscribe off
	}
	broadcast /socket.io/* page {
		socketio
	}
	respond /other served
}
`

// broker returns the options of a node that uses these servers.
func broker(options string, urls ...string) string {
	return "broker nats " + strings.Join(urls, " ") + " {\n" + options + "\n}"
}

// one is what a single nats-server needs.
const one = "replicas 1"

// newNode makes a node, which is not started. options are those of the hub.
func newNode(t *testing.T, name, options string) *node {
	t.Helper()
	dir := t.TempDir()
	n := &node{
		Server: &caddytest.Server{T: t, Addr: caddytest.FreeAddr(t), Admin: caddytest.FreeAddr(t), Log: filepath.Join(dir, "log")},
		name:   name,
		file:   filepath.Join(dir, "Caddyfile"),
	}
	n.configure(options)
	t.Cleanup(func() {
		if t.Failed() {
			log, _ := os.ReadFile(n.Log)
			t.Logf("log of node %s:\n%s", name, log[max(0, len(log)-3000):])
		}
	})
	return n
}

// startNodes starts nodes and waits until they receive from their broker. broker is called for each.
func startNodes(t *testing.T, count int, options func(i int) string) []*node {
	t.Helper()
	var nodes []*node
	for i := range count {
		n := newNode(t, string(rune('a'+i)), options(i))
		n.run(t)
		nodes = append(nodes, n)
	}
	for _, n := range nodes {
		n.waitUp()
	}
	return nodes
}

// configure writes the node's Caddyfile.
func (n *node) configure(options string) (text string) {
	n.T.Helper()
	text = strings.NewReplacer("ADDR", n.Addr, "ADMIN", n.Admin, "LOG", n.Log, "NAME", n.name, "BROKER", options).Replace(caddyfile)
	if err := os.WriteFile(n.file, []byte(text), 0o600); err != nil {
		n.T.Fatal(err)
	}
	return text
}

// reload gives the node other options while it runs.
func (n *node) reload(options string) {
	n.T.Helper()
	status, body := n.Post(n.Admin+"/load", "text/caddyfile", n.configure(options))
	if status != http.StatusOK {
		n.T.Fatal(status, body)
	}
	posts.CloseIdleConnections() // the old server closes them too, maybe just when the next POST is sent
}

// run starts the process.
func (n *node) run(t *testing.T) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	n.cmd, n.ended = caddytest.StartProcess(t, self, n.file, n.Addr, n.Admin)
}

// kill ends the process at once.
func (n *node) kill() {
	n.cmd.Process.Kill()
	<-n.ended
}

// freeze stops the process, whose connections stay open, and returns when it has stopped. thaw lets it go on.
func (n *node) freeze() { servertest.Freeze(n.cmd.Process) }

func (n *node) thaw() { n.cmd.Process.Signal(syscall.SIGCONT) }

// waitUp waits until the node receives everything from its broker.
func (n *node) waitUp() {
	n.T.Helper()
	n.waitState("broker up", func(v totals) bool { return v.Broker != nil && v.Broker.Up })
}

// waitState waits until GET /broadcast says something. There is no event to wait for in another process.
func (n *node) waitState(what string, so func(totals) bool) {
	n.T.Helper()
	var last string
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		resp, err := http.Get("http://" + n.Admin + "/broadcast")
		if err == nil {
			var v totals
			err = json.NewDecoder(resp.Body).Decode(&v)
			resp.Body.Close()
			if err == nil && so(v) {
				return
			}
			last = fmt.Sprintf("%+v", v.Broker)
		}
		if time.Now().After(deadline) {
			n.T.Fatalf("node %s: not %s: %v %s", n.name, what, err, last)
		}
	}
}

// epoch returns what the node's positions begin with.
func (n *node) epoch() string {
	n.T.Helper()
	epoch, _, _ := strings.Cut(n.Totals().ID, "-")
	return epoch
}
