package hub

import (
	"context"
	"runtime"
	"slices"
	"strings"
	"time"
)

// Subscriber describes a client that connects.
type Subscriber struct {
	// Context, if set, ends what Connect waits for, when the hub shares a log with others.
	Context context.Context

	Channels []string // no name twice; none for a client that only publishes
	All      bool     // it gets the messages of every channel instead, from now on
	User     string   // at most 65535 bytes
	Member   string   // what others on its channels may know of it besides the user: a JSON value, or nothing
	Remote   string   // its address
	LastID   string   // if set, it resumes after this message
	Replay   int      // otherwise, how many of the last messages it gets first

	// Expires, if set, is when its access ends: up to a second later it is closed with ReasonExpired.
	Expires time.Time

	// Route is what the connection counts for. If they are not 0, MaxConnections limits the connections of the route, and
	// MaxPerRemote those of one Network on it.
	Route, Network               string
	MaxConnections, MaxPerRemote int
}

// quota is what connections count for: a route, or one network on it.
type quota struct{ route, network string }

// Connect makes a connection and subscribes it: it gets every message published after Connect returns. Until Start, they
// wait in its backlog. What is replayed is at most as large as a backlog may be. Of the last messages it is the newest
// that fit. A resumed channel that does not fit is reported as having a gap.
func (h *Hub) Connect(s Subscriber, o *ConnOptions) (*Conn, Welcome, error) {
	h.Start()
	c := &Conn{hub: h, options: o, who: s.User + s.Member, userLen: uint16(len(s.User)), remote: s.Remote, connected: time.Now().UnixMilli()}
	c.alive.Store(true)
	c.flushing.Store(true) // until Start there is nothing to write to
	// Before the lock is taken: there may be a thousand names to sort.
	order := byName(s.Channels)
	if n := len(order); n > 0 || s.All {
		c.audiences = make([]*audience, max(n, 1))
		c.memberships = make([]membership, max(n, 1))
	}

	h.mu.Lock()
	// Before waiting for the log too: who is over a limit should not make the node open channels.
	err := h.admitConnLocked(&s, o)
	if err == nil && h.log != nil {
		w := want{ctx: s.Context, channels: s.Channels, all: s.All, lastID: s.LastID, replay: s.Replay, limit: o.MaxBacklog}
		if err = h.awaitLocked(&w); err == nil {
			err = h.admitConnLocked(&s, o) // much may have changed meanwhile
		}
		// When Connect returns the channels have this subscriber, or they may be released.
		defer w.done(h)
	}
	if err != nil {
		h.mu.Unlock()
		return nil, Welcome{}, err
	}
	h.countConnLocked(c, &s)
	if s.All {
		a := h.subscribeToAllLocked(c)
		c.audiences[0], c.memberships[0].audience = a, a
		s.Channels, s.LastID, s.Replay = nil, "", 0
	}
	if err := h.subscribeEachLocked(c, s.Channels, order); err != nil {
		// The loop does not know the connection yet, so nobody else counts it out.
		rest := h.unsubscribeAllLocked(c)
		h.mu.Unlock()
		h.unsubscribeRest(rest)
		h.forgetConn(c)
		return nil, Welcome{}, err
	}
	// I2: its place in the log is fixed under the lock under which messages are delivered, so it gets each one either
	// from the history or live.
	c.startSeq = h.seq
	ms, w := h.replayFromLocked(&hearer{conn: c}, s.Channels, s.LastID, s.Replay, o.MaxBacklog)
	if len(ms) > 0 {
		c.holdReplayLocked(ms)
	}
	if w.Gaps != nil {
		h.gaps++
	}
	wake := c.loop.pushLocked(entry{op: opConnect, conn: c})
	if !s.Expires.IsZero() {
		wake |= c.loop.pushLocked(entry{op: opCall, conn: c, arg: func() { c.expire(s.Expires) }})
	}
	h.mu.Unlock()
	h.wake(wake)
	c.sortReplay()
	return c, w, nil
}

// admitConnLocked returns the limit that keeps a connection out, if any.
func (h *Hub) admitConnLocked(s *Subscriber, o *ConnOptions) error {
	if h.closed || h.leaving {
		return ErrClosed
	}
	if n := h.config.MaxConnections; n > 0 && h.connections >= n {
		return h.reject(LimitConnections, ErrTooManyConnections)
	}
	if n := s.MaxConnections; n > 0 && h.quotas[quota{route: s.Route}] >= n {
		return h.reject(LimitRoute, ErrTooManyConnections)
	}
	if n := s.MaxPerRemote; n > 0 && h.quotas[quota{s.Route, s.Network}] >= n {
		return h.reject(LimitAddress, ErrTooManyConnections)
	}
	// Not at the limit but where eviction begins, so that a new connection does not cost another one its place.
	if n := h.config.MaxMemory; n > 0 && h.held.Load() > evictAt(n) {
		return h.reject(LimitMemory, ErrMemory)
	}
	if n := h.config.MaxChannels; n > 0 {
		more := 0
		for _, name := range s.Channels {
			if ch := h.channels[name]; ch == nil || ch.subscribers == 0 {
				more++
			}
		}
		if more > 0 && h.subscribed+more > n {
			return h.reject(LimitChannels, ErrTooManyChannels)
		}
	}
	if o.retired {
		return ErrRetired
	}
	return nil
}

// countConnLocked counts a new connection, and gives it its ID and its loop.
func (h *Hub) countConnLocked(c *Conn, s *Subscriber) {
	h.connections++
	h.connected++
	c.id = ConnID(h.connected)
	h.transports[c.transport()]++
	if c.route = s.Route; s.MaxPerRemote > 0 {
		c.network = s.Network // others are not counted, so that the map stays small
	}
	h.countQuotaLocked(c, 1)
	c.loop = h.pickLoopLocked(s)
	c.loop.load++
}

// subscribeEachLocked counts a new connection as a subscriber of its channels. Until Connect has the loop attach it the
// connection gets no messages, so the lock can be released in between for others. On an error the caller unsubscribes
// it from those that it has.
func (h *Hub) subscribeEachLocked(c *Conn, names []string, order []int) error {
	origin, log := h.origin, h.log
	for i, at := range order {
		var err error
		if i > 0 && i%atOnce == 0 {
			h.mu.Unlock()
			runtime.Gosched() // see inPieces
			h.mu.Lock()
			switch { // what admitted the connection may have changed
			case h.closed:
				err = ErrClosed
			case c.options.retired:
				err = ErrRetired
			case h.origin != origin, h.log != log, log != nil && (log.losing != nil || log.partitioned):
				err = ErrNotReady
			}
		}
		// The first piece was counted by admitConnLocked under the same lock. Since then others may have taken the
		// last place.
		if i >= atOnce && err == nil && h.overChannelsLocked(names[at]) {
			err = h.reject(LimitChannels, ErrTooManyChannels)
		}
		if err != nil {
			c.audiences = c.audiences[:i]
			return err
		}
		a := h.subscribeLocked(c, names[at])
		c.audiences[i], c.memberships[at].audience = a, a
	}
	return nil
}

// overChannelsLocked reports whether one more subscriber of a channel would exceed Config.MaxChannels.
func (h *Hub) overChannelsLocked(name string) bool {
	n := h.config.MaxChannels
	if n == 0 || h.subscribed < n {
		return false
	}
	ch := h.channels[name]
	return ch == nil || ch.subscribers == 0
}

// single is the order of a list of one, so that most connections allocate none.
var single = []int{0}

// byName returns the indexes of names, in the order of the names.
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

// pickLoopLocked picks the loop of a new connection: the one with the fewest connections. But where the connection's
// first channel is small, it is the loop that has the channel's other subscribers, so that a message to a few wakes one
// loop. That must not unbalance the loops, so a loop with more than twice the connections of the least loaded one takes
// no more; the addend lets the first channels of a hub stay together.
func (h *Hub) pickLoopLocked(s *Subscriber) *loop {
	least := h.loops[0]
	for _, l := range h.loops[1:] {
		if l.load < least.load {
			least = l
		}
	}
	ch := h.all
	if !s.All {
		if len(s.Channels) == 0 {
			return least
		}
		ch = h.channels[s.Channels[0]]
	}
	if ch == nil || ch.subscribers == 0 || ch.subscribers >= smallChannel {
		return least
	}
	home := ch.home()
	if home.load > 2*least.load+smallChannel {
		return least
	}
	return home
}

// countQuotaLocked counts n more connections for the route and the network of c.
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

// forgetConn counts out a connection that has no subscriptions any more.
func (h *Hub) forgetConn(c *Conn) {
	h.mu.Lock()
	c.loop.load--
	h.connections--
	h.transports[c.transport()]--
	delete(h.echoes, c.id)
	h.countQuotaLocked(c, -1)
	// Hub.close waits for the last connection before it stops the loops.
	if h.closed && h.connections == 0 {
		close(h.empty)
	}
	h.mu.Unlock()
}
