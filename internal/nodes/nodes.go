// Package nodes knows the nodes that share a log: which of them are alive, and how many subscribers they have. It also
// passes questions to all of them, and collects their answers. It is for administrators: no promise to clients depends on
// it.
package nodes

import (
	"cmp"
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/internal/buildinfo"
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

// Text returns the node's number as people see it, six letters and digits. With a broker, the IDs of connections begin with
// it.
func (n Node) Text() string { return hub.NodeText(n.ID) }

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

// Answer is the answer of one node.
type Answer struct {
	Node Node
	Data []byte
}

// Cluster is the nodes that share the log with this one. There is one per process. Without a broker it has only this node,
// and asks no other.
type Cluster struct {
	hub     *hub.Hub
	version string

	mu       sync.Mutex
	name     string
	away     time.Duration // see KeepAway
	handlers map[string]func([]byte) []byte
	hear     map[string]func(from uint64, data []byte)
	reunited func()   // or nil
	runs     uint64   // how many sessions there have been
	session  *Session // nil without a broker, or if its nodes cannot reach each other
}

// New returns a cluster whose only node is this one, with its hub.
func New(h *hub.Hub) *Cluster {
	return &Cluster{hub: h, version: buildinfo.Read().Version, away: hub.KickTime, handlers: make(map[string]func([]byte) []byte), hear: make(map[string]func(uint64, []byte))}
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
	s := c.current()
	if s == nil {
		return 1
	}
	return s.alive()
}

// current returns the session, or nil.
func (c *Cluster) current() *Session {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.session
}

// KeepAway sets how long a silent node is listed as away: as long as it may still have clients. The minimum is the time for
// which the log keeps a kick for it.
func (c *Cluster) KeepAway(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.away = max(d, hub.KickTime)
}

// Rename sets what people call this node, from the next session on.
func (c *Cluster) Rename(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.name = name
}

// Handle sets the function that answers questions of a kind, which is 1 to 64 bytes. It is called by several goroutines at
// once, also for questions of this node, and may take as long as Ask waits. It must not trust a request, which may come
// from something other than a node. An answer may have MaxAnswer bytes; a node that sends a larger one counts as missing.
// Each kind is set once, before the first session.
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

// byName sorts nodes.
func byName(a, b Node) int {
	return cmp.Or(strings.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID))
}
