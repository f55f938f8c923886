package socketio

import (
	"crypto/rand"
	"encoding/base64"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/socketio/packet"
)

// Table has the sessions of a process. They are not a route's, because a client that polls has no connection: when the
// configuration is reloaded, its next request comes to another route, and has to find its session.
type Table struct {
	mu       sync.Mutex
	polling  map[string]*poller     // by the Engine.IO session's ID
	sessions map[*hub.Conn]*session // that have not ended
	recovery recovery

	handingOver atomic.Bool // the process ends, and another one goes on with the records
}

// HandOver has sessions that end from now on stay in the records, for the process that goes on with them.
func (t *Table) HandOver() { t.handingOver.Store(true) }

// NewTable returns a table without sessions.
func NewTable() *Table {
	return &Table{polling: make(map[string]*poller), sessions: make(map[*hub.Conn]*session)}
}

// newID returns a random ID of 120 bits. Those of Engine.IO sessions, and those that recover one, are secrets: whoever knows
// one has the session. The reference's have 20 characters too, by which some adapters tell them from rooms.
func newID() string {
	var b [15]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// nameOf returns the hub's name of a client in a namespace. It has the namespace, because an ID is one of a namespace: what a
// backend sends to it in another one must not come. It is what a room of that name would have as its channel.
func nameOf(namespace, sid string) string {
	name, _ := packet.Room(namespace, sid)
	return name
}

// MayBeID reports whether a text looks like an ID that newID makes.
func MayBeID(s string) bool {
	b, err := base64.RawURLEncoding.DecodeString(s)
	return err == nil && len(b) == 15
}

// find returns the session of a client that began by polling on a route.
func (t *Table) find(sid, route string) *poller {
	t.mu.Lock()
	defer t.mu.Unlock()
	if p := t.polling[sid]; p != nil && p.route == route {
		return p
	}
	return nil
}

func (t *Table) add(p *poller) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.polling[p.sid] = p
}

func (t *Table) remove(p *poller) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.polling, p.sid)
}

// register notes the session of a connection. It reports false if its end was noticed already.
func (t *Table) register(s *session) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !s.ended {
		t.sessions[s.conn] = s
	}
	return !s.ended
}

func (t *Table) unregister(c *hub.Conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.sessions, c)
}

// entered notes that a session is in a namespace.
func (t *Table) entered(s *session) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s.early != nil {
		s.early.Stop()
		s.early = nil
	}
}

// setLate sets the timer of a packet whose attachments have to come, or nil. It ends with the session, as that for the first
// namespace does.
func (t *Table) setLate(s *session, timer *time.Timer) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s.late != nil {
		s.late.Stop()
	}
	if s.late = timer; s.ended && timer != nil {
		timer.Stop()
	}
}

// of returns the session of a connection.
func (t *Table) of(c *hub.Conn) *session {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.sessions[c]
}
