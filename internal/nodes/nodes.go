// Package nodes knows the nodes that share a log: which of them are alive, and how many subscribers they have. It passes
// questions to all of them, and joins their answers. All of it is for people who administer a cluster: nothing that clients
// are promised depends on it.
package nodes

import (
	"cmp"
	"encoding/json"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
)

// Node is a Caddy process that shares the log.
type Node struct {
	ID          uint64 // random, another one after each restart
	Name        string // what people call it; it need not be unique
	Started     time.Time
	Connections int
	Version     string // of this module
	Epoch       string // of the log that it follows; empty until it has one
	Seq         uint64 // its watermark
	Away        bool   // it is silent and has not said goodbye: it may be cut off, and still have clients
}

// Text returns the node's number as people see it, six letters and digits. It begins the IDs of connections where nodes are
// told apart.
func (n Node) Text() string { return Text(n.ID) }

// Text returns a node's number as people see it.
func Text(id uint64) string { return hub.NodeText(id) }

// MarshalJSON returns the node as the admin API shows it.
func (n Node) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		ID          string    `json:"id"`
		Name        string    `json:"name"`
		Started     time.Time `json:"started"`
		Connections int       `json:"connections"`
		Version     string    `json:"version"`
		Epoch       string    `json:"epoch"`
		Watermark   uint64    `json:"watermark"`
		Away        bool      `json:"away,omitempty"`
	}{n.Text(), n.Name, n.Started.UTC(), n.Connections, n.Version, n.Epoch, n.Seq, n.Away})
}

// Answer is what a node has answered.
type Answer struct {
	Node Node
	Data []byte
}

// Cluster is the nodes that share the log with this one. There is one per process. Without a broker it has this node alone,
// and asks nobody else.
type Cluster struct {
	hub     *hub.Hub
	version string

	mu       sync.Mutex
	name     string
	away     time.Duration // see KeepAway
	handlers map[string]func([]byte) []byte
	runs     uint64   // how many sessions there have been
	session  *Session // nil without a broker, or if its nodes cannot reach each other
}

// New returns the cluster that a hub is the only node of.
func New(h *hub.Hub) *Cluster {
	return &Cluster{hub: h, version: version(), away: hub.KickTime, handlers: make(map[string]func([]byte) []byte)}
}

// Nodes returns the nodes that are alive: this one, and then the others by name.
func (c *Cluster) Nodes() []Node {
	return slices.DeleteFunc(c.Known(), func(n Node) bool { return n.Away })
}

// Known returns the nodes that are alive, and those that are away: this one, and then the others by name.
func (c *Cluster) Known() []Node {
	list := []Node{c.self()}
	c.mu.Lock()
	s, away := c.session, c.away
	c.mu.Unlock()
	if s == nil {
		return list
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return append(list, s.table.list(time.Now(), away)...)
}

// Alive returns how many nodes are alive, this one included.
func (c *Cluster) Alive() int {
	c.mu.Lock()
	s := c.session
	c.mu.Unlock()
	if s == nil {
		return 1
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return 1 + s.table.alive(time.Now())
}

// KeepAway sets how long a node is away that has fallen silent, if that is longer than a kick waits for it in the log: as
// long as it may have clients.
func (c *Cluster) KeepAway(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.away = max(d, hub.KickTime)
}

// Rename sets what people call this node. It begins with the next session.
func (c *Cluster) Rename(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.name = name
}

// Handle sets what answers questions of a kind, which is 1 to 64 bytes. It is called by several goroutines at once, for
// questions of this node too, and may take as long as Ask waits. A request may be anything: who sent it need not be a
// node of ours. An answer may have MaxAnswer bytes; the node that sends a larger one is missing. Those of each kind are set
// once, before the cluster has others.
func (c *Cluster) Handle(kind string, answer func(request []byte) []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.handlers[kind] = answer
}

// self describes this node.
func (c *Cluster) self() Node {
	s := c.hub.Summary() // before c.mu, because a hub may close its log, which takes it
	c.mu.Lock()
	defer c.mu.Unlock()
	return Node{
		ID: c.hub.Node(), Name: c.name, Started: s.Started, Connections: s.Connections,
		Version: c.version, Epoch: s.Epoch, Seq: s.Seq,
	}
}

// version returns the version of this module in the running program.
func version() string {
	const path = "github.com/caddy-broadcast/caddy-broadcast"
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, m := range append(info.Deps, &info.Main) {
		if m.Path == path {
			if m.Replace != nil {
				m = m.Replace
			}
			return m.Version
		}
	}
	return ""
}

// byName sorts nodes.
func byName(a, b Node) int {
	return cmp.Or(strings.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID))
}
