package hub

import (
	"runtime"
	"slices"
	"strings"
	"time"
)

// Subscriber is who connects.
type Subscriber struct {
	Channels []string // no name twice, or All alone; none for one who only publishes
	User     string
	Remote   string // its address
	LastID   string // resumes after this message, if set
	Replay   int    // else: how many of the last messages it gets, before those to come

	// Route is what the connection counts for: MaxConnections and MaxPerRemote, if they are not 0, refuse one that is
	// too many. Those with the same Network count as one remote.
	Route, Network               string
	MaxConnections, MaxPerRemote int
}

// quota is what connections count for: a route, or one network on it.
type quota struct{ route, network string }

// Connect makes a connection and subscribes it: it gets every message published after Connect returns. What it gets
// waits in its backlog until Start. Replayed is at most what a backlog may have: of the last messages the newest; what
// resuming would need beyond that is lost.
func (h *Hub) Connect(s Subscriber, o *ConnOptions) (*Conn, Welcome, error) {
	c := &Conn{hub: h, options: o, user: s.User, remote: s.Remote, connected: time.Now().UnixMilli()}
	c.alive.Store(true)
	c.flushing.Store(true) // until Start there is nothing to write to
	order := byName(s.Channels)
	if len(order) > 0 {
		c.audiences = make([]*audience, len(order))
		c.places = make([]place, len(order))
	}

	h.mu.Lock()
	err := h.admitConnLocked(&s)
	if err == nil && o.retired {
		err = ErrRetired
	}
	if err != nil {
		h.mu.Unlock()
		return nil, Welcome{}, err
	}
	h.connections++
	h.connected++
	c.id = h.connected
	h.transports[o.Transport]++
	if c.route = s.Route; s.MaxPerRemote > 0 {
		c.network = s.Network
	}
	h.countQuotaLocked(c, 1)
	c.loop = h.pickLoopLocked(s.Channels)
	c.loop.load++
	if err := h.subscribeEachLocked(c, s.Channels, order); err != nil {
		rest := h.unsubscribeAllLocked(c)
		h.mu.Unlock()
		h.unsubscribeRest(rest)
		h.forgetConn(c)
		return nil, Welcome{}, err
	}
	c.startSeq = h.seq
	ms, w := h.replayFromLocked(s.Channels, s.LastID, s.Replay, o.MaxBacklog)
	if len(ms) > 0 {
		c.holdReplayLocked(ms)
	}
	if w.Lost != nil {
		h.gaps++
	}
	wake := c.loop.pushLocked(entry{op: opConnect, conn: c})
	h.mu.Unlock()
	h.wake(wake)
	c.sortReplay()
	return c, w, nil
}

// joinAll counts a new connection as a subscriber of its channels. It gets no messages until Connect has its loop place
// it, so the lock can be released in between. On an error the connection has some of them to leave. The caller holds
// h.mu.
func (h *Hub) subscribeEachLocked(c *Conn, names []string, order []int) error {
	for i, at := range order {
		var err error
		if i > 0 && i%atOnce == 0 {
			h.mu.Unlock()
			runtime.Gosched() // see inPieces
			h.mu.Lock()
			switch { // as it was when the connection was admitted?
			case h.closed:
				err = ErrClosed
			case c.options.retired:
				err = ErrRetired
			}
		}
		if i >= atOnce && err == nil && h.overChannelsLocked(names[at]) {
			err = h.reject(LimitChannels, ErrTooManyChannels)
		}
		if err != nil {
			c.audiences = c.audiences[:i]
			return err
		}
		a := h.subscribeLocked(c.loop, names[at])
		c.audiences[i], c.places[at].audience = a, a
	}
	return nil
}

// tooManyWith reports whether one more subscriber of a channel would be over Options.MaxChannels. The caller holds h.mu.
func (h *Hub) overChannelsLocked(name string) bool {
	n := h.options.MaxChannels
	if n == 0 || h.subscribed < n || name == All {
		return false
	}
	ch := h.channels[name]
	return ch == nil || ch.subscribers == 0
}

var single = []int{0}

// byName returns where in a list the name is that comes first in order, and then the others.
func byName(names []string) []int {
	if len(names) == 1 {
		return single
	}
	order := make([]int, len(names))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return strings.Compare(names[a], names[b]) })
	return order
}

// assign picks the loop of a new connection: the one with the fewest, but where its first channel is small, the one
// that has that channel's others, so that a message to a few is the work of one loop. The caller holds h.mu.
func (h *Hub) pickLoopLocked(channels []string) *loop {
	least := h.loops[0]
	for _, l := range h.loops[1:] {
		if l.load < least.load {
			least = l
		}
	}
	if len(channels) == 0 {
		return least
	}
	ch := h.channels[channels[0]]
	if ch == nil || ch.subscribers == 0 || ch.subscribers >= smallChannel {
		return least
	}
	home := ch.audiences[0].loop
	if home.load > 2*least.load+smallChannel {
		return least
	}
	return home
}

// admit applies the limits to a new connection. The caller holds h.mu.
func (h *Hub) admitConnLocked(s *Subscriber) error {
	if h.closed || h.leaving {
		return ErrClosed
	}
	if n := h.options.MaxConnections; n > 0 && h.connections >= n {
		return h.reject(LimitConnections, ErrTooManyConnections)
	}
	if n := s.MaxConnections; n > 0 && h.quotas[quota{route: s.Route}] >= n {
		return h.reject(LimitRoute, ErrTooManyConnections)
	}
	if n := s.MaxPerRemote; n > 0 && h.quotas[quota{s.Route, s.Network}] >= n {
		return h.reject(LimitAddress, ErrTooManyConnections)
	}
	if n := h.options.MaxMemory; n > 0 && h.held.Load() > evictAt(n) {
		return h.reject(LimitMemory, ErrMemory)
	}
	if n := h.options.MaxChannels; n > 0 {
		more := 0
		for _, name := range s.Channels {
			if ch := h.channels[name]; name != All && (ch == nil || ch.subscribers == 0) {
				more++
			}
		}
		if more > 0 && h.subscribed+more > n {
			return h.reject(LimitChannels, ErrTooManyChannels)
		}
	}
	return nil
}

// count counts a connection for its route. The caller holds h.mu.
func (h *Hub) countQuotaLocked(c *Conn, n int) {
	add := func(q quota) {
		if h.quotas[q] += n; h.quotas[q] == 0 {
			delete(h.quotas, q)
		}
	}
	add(quota{route: c.route})
	if c.network != "" {
		add(quota{c.route, c.network})
	}
}

// forget counts out a connection that has left.
func (h *Hub) forgetConn(c *Conn) {
	h.mu.Lock()
	c.loop.load--
	h.connections--
	h.transports[c.options.Transport]--
	h.countQuotaLocked(c, -1)
	if h.closed && h.connections == 0 {
		close(h.empty)
	}
	h.mu.Unlock()
}
