// Package hub is the engine: one log that gives every message its place, and loops that own the connections and
// write to them. It knows no HTTP, no Caddy and no wire format.
//
//	Publish ──► log (Hub) ──► inbox of each loop that has a subscriber of the channel
//	                              │ takes all that is waiting, as one batch
//	                              ▼
//	                            loop ──► one non-blocking write a connection
//
// Who owns what: Hub.mu guards the log, the table of channels and the loops' inboxes, and is never held while a
// socket is written. A loop alone touches the membership and the state of its connections. A connection's backlog is
// shared by its loop and, while there is one, its flusher, under Conn.mu.
package hub

import (
	"crypto/rand"
	"errors"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

var (
	// ErrClosed is returned once the hub, or the connection that publishes, is closing.
	ErrClosed = errors.New("closed")

	// ErrFull is returned to a publisher while a loop has more waiting than its inbox takes.
	ErrFull = errors.New("too many messages are waiting to be delivered")

	// ErrKeyReused is returned to a publisher who has given another message the same key.
	ErrKeyReused = errors.New("the idempotency key is that of another message")

	// ErrTooManyConnections and ErrTooManyChannels are returned to a subscriber over a limit of Options.
	ErrTooManyConnections = errors.New("too many connections")
	ErrTooManyChannels    = errors.New("too many channels")

	// ErrRetired is returned to a subscriber whose options were retired while it was being accepted.
	ErrRetired = errors.New("the configuration was reloaded: connect again")

	// ErrMemory is returned to a subscriber while backlogs and history take all that they may.
	ErrMemory = errors.New("too much is waiting for others")
)

const (
	// maxLoops is as many as fit in the mask of loops that a publish wakes.
	maxLoops = 64

	// smallChannel is how many subscribers of a channel are kept together on one loop.
	smallChannel = 32

	// defaultMaxInbox bounds the bytes waiting in one loop's inbox.
	defaultMaxInbox = 64 << 20

	// DefaultHistoryBytes bounds the history of all channels if no option does.
	DefaultHistoryBytes = 64 << 20
)

// Options can be changed while the hub runs. The zero value is a hub without limits that writes at once.
type Options struct {
	// Coalesce is how long a loop gathers messages before it writes them.
	Coalesce time.Duration
	// MaxConnections and MaxChannels refuse further connections and channels; 0 is no limit.
	MaxConnections, MaxChannels int
	// History is how many messages a channel keeps, for HistoryAge at most if that is set, and HistoryBytes (0 is 64
	// MiB) over all channels.
	History      int
	HistoryAge   time.Duration
	HistoryBytes int
	// MaxMemory bounds the bytes that wait or are kept; 0 is no limit. See memory.go.
	MaxMemory int64
	// MaxInbox bounds the bytes waiting in one loop's inbox; 0 is 64 MiB.
	MaxInbox int
}

// Hub is the log and the loops behind it.
type Hub struct {
	epoch    string
	started  time.Time
	loops    []*loop
	running  sync.WaitGroup
	flushers flushers
	stopped  chan struct{} // closed when the loops have ended

	backlog   atomic.Int64 // bytes that wait for connections, counted for each
	held      atomic.Int64 // bytes that are in memory for them; see memory.go
	coalesce  atomic.Int64 // Options.Coalesce, for the loops
	maxMemory atomic.Int64 // Options.MaxMemory
	relieving atomic.Bool
	refused   [refusals]atomic.Uint64

	configuring sync.Mutex // held while the options change; taken before mu

	mu          sync.Mutex
	room        sync.Cond // on mu: an inbox was emptied; for Publish that waits
	waiting     int       // how many wait for room
	promised    int       // bytes of what is encoded for a join, and queued then
	options     Options
	seq         uint64
	seqTime     time.Time // when it was given out
	bytes       uint64
	channels    map[string]*channel // those that have subscribers or history
	index       index               // their names, but for All
	lost        uint64              // no channel but those has lost a later message
	subscribed  int                 // those that have subscribers
	history     history
	repeats     repeats
	connections int
	connected   uint64            // how many there have ever been
	transports  map[string]int    // connections by transport
	quotas      map[quota]int     // connections that count for a route's limits
	published   map[string]uint64 // messages by source
	gaps        uint64            // that connections were told of when they started
	all         *channel          // the subscribers of every channel, if there are any
	closing     sync.Once
	leaving     bool
	closed      bool
	empty       chan struct{} // closed when the hub is closed and the last connection is gone
}

// channel is a name that has subscribers or history. Hub.mu guards it.
type channel struct {
	name        string
	subscribers int
	audiences   []*audience // one for each loop that has a subscriber
	history     []*stored   // oldest first
	lost        uint64      // the last message that is not kept any more
}

// audience is the subscribers of a channel on one loop.
type audience struct {
	channel *channel
	loop    *loop
	size    int // guarded by Hub.mu: those who have joined and not left, by the log

	// The loop's own: membership by the entries of the inbox that it has processed.
	groups []group    // connections on this channel alone, by format: they all get the same bytes
	mixed  []member   // connections on other channels too
	batch  []*Message // what the current batch has for this channel
}

type group struct {
	format Format
	conns  []*Conn
}

// New starts a hub.
func New(o Options) *Hub {
	h := &Hub{
		epoch:    rand.Text()[:8],
		started:  time.Now(),
		channels: make(map[string]*channel),

		transports: make(map[string]int),
		quotas:     make(map[quota]int),
		published:  make(map[string]uint64),
		empty:      make(chan struct{}),
	}
	h.room.L = &h.mu
	h.repeats.init()
	h.flushers.hub = h
	h.flushers.work.L = &h.flushers.mu
	h.flushers.closed = make(chan struct{})
	h.stopped = make(chan struct{})
	h.Configure(o)
	for range min(runtime.GOMAXPROCS(0), maxLoops) {
		l := &loop{hub: h, id: len(h.loops), wake: make(chan struct{}, 1), rings: make(map[int]*ring), toFlush: make([]*Conn, 0, 64)}
		h.loops = append(h.loops, l)
	}
	for _, l := range h.loops {
		h.running.Go(l.run)
	}
	return h
}

// Configure replaces the options. Limits apply to what comes after.
func (h *Hub) Configure(o Options) {
	if o.MaxInbox == 0 {
		o.MaxInbox = defaultMaxInbox
	}
	if o.HistoryBytes == 0 {
		o.HistoryBytes = DefaultHistoryBytes
	}
	h.configuring.Lock()
	defer h.configuring.Unlock()
	h.mu.Lock()
	if h.closed {
		h.mu.Unlock()
		return
	}
	h.coalesce.Store(int64(o.Coalesce))
	h.maxMemory.Store(o.MaxMemory)
	shorter := o.History < h.options.History
	h.options = o
	if t := h.history.timer; t != nil {
		t.Stop()
	}
	if len(h.repeats.known) > h.keyLimit() {
		h.forgetKeys()
	}
	h.mu.Unlock()
	if shorter {
		h.shorten()
	}
	h.expire()
	h.checkMemory()
}

// Publish gives the messages their places in the log and leaves them to the loops: all of them, next to each other,
// or none and an error, an *InvalidError where one of them could not be sent to every client. It never waits for
// subscribers. Afterwards the messages are the hub's: only what Publish has set may be read.
func (h *Hub) Publish(ms ...*Message) error { return h.publish(ms, false) }

// PublishWait is Publish for one who can be held back: where Publish returns ErrFull it waits for room instead.
func (h *Hub) PublishWait(ms ...*Message) error { return h.publish(ms, true) }

func (h *Hub) publish(ms []*Message, wait bool) error {
	if len(ms) == 0 {
		return nil
	}
	if err := checkAll(ms); err != nil {
		return err
	}
	keys, err := h.repeats.keysOf(ms)
	if err != nil {
		return err
	}
	now := time.Now()
	from := ms[0].From
	h.mu.Lock()
	waited, err := h.awaitFit(ms, from, wait)
	if waited > 0 {
		defer from.waits(-waited)
		now = time.Now()
	}
	if err != nil {
		h.mu.Unlock()
		return err
	}
	if now.Before(h.seqTime) {
		now = h.seqTime // another was faster: times are in the order of the log
	}
	h.seqTime = now
	if !h.repeats.look(keys, now) {
		h.mu.Unlock()
		return ErrKeyReused
	}
	wake := h.enter(ms, keys, now)
	most := h.options.historyBytes()
	h.mu.Unlock()
	h.wake(wake)
	if h.history.bytes.Load() > int64(most) { // see trim
		h.trimAll(most)
	}
	h.checkMemory()
	return nil
}

// awaitFit returns when there is room for the messages, or an error if there is not and it must not wait. A connection
// that waited holds bytes, which the caller counts out later. The caller holds h.mu.
func (h *Hub) awaitFit(ms []*Message, from *Conn, wait bool) (waited int, err error) {
	for {
		if h.closed || from != nil && from.left {
			return waited, ErrClosed
		}
		limit, ok := h.fits(ms)
		if ok {
			return waited, nil
		}
		if !wait {
			h.Refused(limit)
			h.checkMemory()
			return waited, ErrFull
		}
		if waited == 0 && from != nil {
			h.mu.Unlock()
			waited = from.reserve(waiterCost + cap(ms[0].Data))
			h.mu.Lock()
			continue // there may be room now
		}
		h.awaitRoom()
	}
}

// enter gives messages that fit their places, and puts them in inboxes and the history. The caller holds h.mu.
func (h *Hub) enter(ms []*Message, keys []keyed, now time.Time) (wake uint64) {
	for i, m := range ms {
		m.hub = h
		if !m.NoEcho {
			m.From = nil // history would hold the connection
		}
		if m.Key != "" {
			k := &keys[i]
			if first := ms[k.first]; first != m {
				m.Seq, m.Subscribers, m.Time = first.Seq, first.Subscribers, first.Time
				continue
			}
			if k.seq != 0 {
				m.Seq, m.Subscribers, m.Time = k.seq, k.subscribers, k.at
				continue
			}
		}
		h.seq++
		h.bytes += uint64(len(m.Data))
		h.published[m.Source]++
		m.Seq, m.Time = h.seq, now
		ch := h.channels[m.Channel]
		if ch != nil {
			m.Subscribers = ch.subscribers
		}
		if h.all != nil {
			wake |= h.deliver(h.all, m)
		}
		if m.Key != "" {
			h.rememberKey(m, &keys[i])
		}
		if ch == nil {
			if h.options.History == 0 {
				h.lost = m.Seq
				continue
			}
			ch = h.open(m.Channel)
		}
		wake |= h.deliver(ch, m)
		if h.options.History > 0 {
			h.remember(ch, m)
		} else {
			ch.lost = m.Seq
		}
	}
	return wake
}

// deliver puts a message in the inboxes of a channel's subscribers. The caller holds h.mu.
func (h *Hub) deliver(ch *channel, m *Message) (wake uint64) {
	for _, a := range ch.audiences {
		a.loop.inboxBytes += m.cost()
		wake |= a.loop.push(entry{op: opMessage, audience: a, message: m})
	}
	return wake
}

// fits reports whether every loop that ms go to has room for them, and all together, or else which limit they are
// over. A loop with nothing waiting always has room.
func (h *Hub) fits(ms []*Message) (limit Refusal, ok bool) {
	need := 0
	for _, m := range ms {
		need += m.cost()
		for _, ch := range [...]*channel{h.channels[m.Channel], h.all} {
			if ch == nil {
				continue
			}
			for _, a := range ch.audiences {
				if n := a.loop.inboxBytes; n > 0 && n+need > h.options.MaxInbox {
					return RefusedFull, false
				}
			}
		}
	}
	if h.options.MaxMemory > 0 && !h.hasRoom(h.memoryFor(ms)) {
		return RefusedMemory, false
	}
	return 0, true
}

// wake rouses the loops whose bits are set. It is called without the lock, as rousing may cost a system call.
func (h *Hub) wake(mask uint64) {
	for _, l := range h.loops {
		if mask == 0 {
			return
		}
		if mask&1 != 0 {
			select {
			case l.wake <- struct{}{}:
			default:
			}
		}
		mask >>= 1
	}
}

// post puts an entry that is not a message in the loop's inbox.
func (h *Hub) post(l *loop, e entry) {
	h.mu.Lock()
	wake := l.push(e)
	h.mu.Unlock()
	h.wake(wake)
}

// All stands for every channel. No channel can have its name.
const All = "\x00"

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
	err := h.admit(&s)
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
	h.count(c, 1)
	c.loop = h.assign(s.Channels)
	c.loop.load++
	if err := h.joinAll(c, s.Channels, order); err != nil {
		rest := h.leave(c)
		h.mu.Unlock()
		h.partAll(rest)
		h.forget(c)
		return nil, Welcome{}, err
	}
	c.since = h.seq
	ms, w := h.since(s.Channels, s.LastID, s.Replay, o.MaxBacklog)
	if len(ms) > 0 {
		c.keepReplay(ms)
	}
	if w.Lost != nil {
		h.gaps++
	}
	wake := c.loop.push(entry{op: opConnect, conn: c})
	h.mu.Unlock()
	h.wake(wake)
	c.sortReplay()
	return c, w, nil
}

// joinAll counts a new connection as a subscriber of its channels. It gets no messages until Connect has its loop place
// it, so the lock can be released in between. On an error the connection has some of them to leave. The caller holds
// h.mu.
func (h *Hub) joinAll(c *Conn, names []string, order []int) error {
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
		if i >= atOnce && err == nil && h.tooManyWith(names[at]) {
			err = h.refuse(RefusedChannels, ErrTooManyChannels)
		}
		if err != nil {
			c.audiences = c.audiences[:i]
			return err
		}
		a := h.join(c.loop, names[at])
		c.audiences[i], c.places[at].audience = a, a
	}
	return nil
}

// tooManyWith reports whether one more subscriber of a channel would be over Options.MaxChannels. The caller holds h.mu.
func (h *Hub) tooManyWith(name string) bool {
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
func (h *Hub) assign(channels []string) *loop {
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
func (h *Hub) admit(s *Subscriber) error {
	if h.closed || h.leaving {
		return ErrClosed
	}
	if n := h.options.MaxConnections; n > 0 && h.connections >= n {
		return h.refuse(RefusedConnections, ErrTooManyConnections)
	}
	if n := s.MaxConnections; n > 0 && h.quotas[quota{route: s.Route}] >= n {
		return h.refuse(RefusedRoute, ErrTooManyConnections)
	}
	if n := s.MaxPerRemote; n > 0 && h.quotas[quota{s.Route, s.Network}] >= n {
		return h.refuse(RefusedAddress, ErrTooManyConnections)
	}
	if n := h.options.MaxMemory; n > 0 && h.held.Load() > relieveAt(n) {
		return h.refuse(RefusedMemory, ErrMemory)
	}
	if n := h.options.MaxChannels; n > 0 {
		more := 0
		for _, name := range s.Channels {
			if ch := h.channels[name]; name != All && (ch == nil || ch.subscribers == 0) {
				more++
			}
		}
		if more > 0 && h.subscribed+more > n {
			return h.refuse(RefusedChannels, ErrTooManyChannels)
		}
	}
	return nil
}

// join counts one more subscriber of a channel on a loop. The caller holds h.mu.
func (h *Hub) join(l *loop, name string) *audience {
	ch := h.channels[name]
	if ch == nil {
		ch = h.open(name)
	}
	if ch.subscribers++; ch.subscribers == 1 {
		if name == All {
			h.all = ch
		} else {
			h.subscribed++
		}
	}
	for _, a := range ch.audiences {
		if a.loop == l {
			a.size++
			return a
		}
	}
	a := &audience{channel: ch, loop: l, size: 1}
	ch.audiences = append(ch.audiences, a)
	return a
}

// leave takes a connection out of its channels: a piece of them, and returns the others, which partAll takes it out of.
// It gets no message published from now on, as the caller has its loop do the same. An audience or a channel that is
// empty is forgotten; who comes later finds a new one, so what is still on the way to the old one stays right. The
// caller holds h.mu.
func (h *Hub) leave(c *Conn) (rest []*audience) {
	if c.left {
		return nil
	}
	c.left = true
	rest, c.audiences = c.audiences, nil
	return h.partSome(rest)
}

// partAll counts one subscriber less of each.
func (h *Hub) partAll(rest []*audience) {
	for len(rest) > 0 {
		h.mu.Lock()
		rest = h.partSome(rest)
		h.mu.Unlock()
	}
}

// partSome counts one subscriber less of a piece of the audiences, and returns the others. The caller holds h.mu.
func (h *Hub) partSome(all []*audience) (rest []*audience) {
	n := min(atOnce, len(all))
	for _, a := range all[:n] {
		h.part(a)
	}
	return all[n:]
}

// part counts one subscriber less. The caller holds h.mu.
func (h *Hub) part(a *audience) {
	ch := a.channel
	a.size--
	ch.subscribers--
	if a.size == 0 {
		i, last := slices.Index(ch.audiences, a), len(ch.audiences)-1
		ch.audiences[i] = ch.audiences[last]
		ch.audiences[last] = nil
		ch.audiences = ch.audiences[:last]
	}
	if ch.subscribers == 0 {
		if ch == h.all {
			h.all = nil
		} else {
			h.subscribed--
		}
		h.release(ch)
	}
}

// open makes a channel. The caller holds h.mu.
func (h *Hub) open(name string) *channel {
	ch := &channel{name: name, lost: h.lost}
	h.channels[name] = ch
	if name != All {
		h.index.add(name)
	}
	return ch
}

// release forgets a channel that nobody needs. The caller holds h.mu.
func (h *Hub) release(ch *channel) {
	if ch.subscribers == 0 && len(ch.history) == 0 {
		h.lost = max(h.lost, ch.lost)
		delete(h.channels, ch.name)
		if ch.name != All {
			h.index.remove(ch.name)
		}
	}
}

// depart is leave for one who does not hold h.mu.
func (h *Hub) depart(c *Conn) {
	h.mu.Lock()
	rest := h.leave(c)
	h.mu.Unlock()
	h.partAll(rest)
}

// count counts a connection for its route. The caller holds h.mu.
func (h *Hub) count(c *Conn, n int) {
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
func (h *Hub) forget(c *Conn) {
	h.mu.Lock()
	c.loop.load--
	h.connections--
	h.transports[c.options.Transport]--
	h.count(c, -1)
	if h.closed && h.connections == 0 {
		close(h.empty)
	}
	h.mu.Unlock()
}

// Close closes every connection with the code and waits until they are gone, but no longer than the timeout; then it
// stops the loops. The closes are spread over the delay, in which nobody new is taken in. If it was called already, it
// waits for that.
func (h *Hub) Close(code uint16, text string, delay, timeout time.Duration) {
	h.closing.Do(func() {
		h.spread(code, text, delay)
		h.close(code, text, timeout)
	})
}

// spreadStep is how often some are closed.
const spreadStep = 50 * time.Millisecond

func (h *Hub) spread(code uint16, text string, delay time.Duration) {
	h.mu.Lock()
	h.leaving = true
	h.mu.Unlock()
	steps := int(delay / spreadStep)
	first := make([]int, len(h.loops)) // how many there were
	for step := range steps {
		h.onLoops(func(l *loop) {
			var open []*Conn
			l.each(func(c *Conn) {
				if c.state == stateOpen {
					open = append(open, c)
				}
			})
			if step == 0 {
				first[l.id] = len(open)
			}
			stay := first[l.id] - first[l.id]*(step+1)/steps
			for _, c := range open[min(stay, len(open)):] {
				l.close(c, code, text, false)
			}
		})
		time.Sleep(spreadStep)
	}
}

func (h *Hub) close(code uint16, text string, timeout time.Duration) {
	h.mu.Lock()
	h.closed = true
	if t := h.history.timer; t != nil {
		t.Stop()
	}
	if t := h.repeats.timer; t != nil {
		t.Stop()
	}
	h.room.Broadcast()
	if h.connections == 0 {
		close(h.empty)
	}
	h.mu.Unlock()

	for _, l := range h.loops {
		h.post(l, entry{op: opCloseAll, code: code, text: text})
	}
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case <-h.empty:
	case <-timer.C:
	}
	for _, l := range h.loops {
		h.post(l, entry{op: opStop})
	}
	h.running.Wait()
	close(h.stopped)
	h.flushers.close()
}

// Stats are the hub's totals.
type Stats struct {
	Epoch       string
	Started     time.Time
	Connections int    // open now
	Channels    int    // with subscribers now
	Seq         uint64 // of the last message published, which is how many there were
	Bytes       uint64 // of data published
	Deliveries  uint64 // messages handed to connections
	Written     uint64 // bytes handed to connections
	Writes      uint64 // times a connection was handed bytes
	Backlog     int64  // bytes waiting for connections that do not take them
	Memory      int64  // bytes that Options.MaxMemory bounds
	Keys        int    // idempotency keys that are known
	KeysEvicted uint64 // and those that were forgotten before their time, for want of room
	Kept        int    // messages in history
	KeptBytes   int    // and what they cost
	Gaps        uint64 // that connections were told of

	Transports map[string]int    // connections by transport
	Published  map[string]uint64 // messages by source
	Closed     map[string]uint64 // connections that have ended, by reason
	Refused    map[string]uint64 // connections and messages that were over a limit, by limit

	// Fanout counts messages by how long they took from their publishing to the last of their writes on a loop, in
	// seconds: those up to each bound, and in FanoutSum all their seconds together.
	Fanout      map[float64]uint64
	FanoutCount uint64
	FanoutSum   float64
}

// Stats returns the totals of now.
func (h *Hub) Stats() Stats {
	h.mu.Lock()
	s := Stats{
		Epoch:       h.epoch,
		Started:     h.started,
		Connections: h.connections,
		Channels:    h.subscribed,
		Kept:        h.history.count,
		KeptBytes:   int(h.history.bytes.Load()),
		Seq:         h.seq,
		Bytes:       h.bytes,
		Gaps:        h.gaps,
		Memory:      h.held.Load() + h.queued(),
		Keys:        len(h.repeats.known),
		KeysEvicted: h.repeats.evicted,
		Transports:  maps.Clone(h.transports),
		Published:   maps.Clone(h.published),
	}
	h.mu.Unlock()
	s.Backlog = h.backlog.Load()
	s.Refused = make(map[string]uint64)
	for r := range refusals {
		s.Refused[r.String()] = h.refused[r].Load()
	}
	s.Closed = make(map[string]uint64)
	s.Fanout = make(map[float64]uint64)
	for _, l := range h.loops {
		c := &l.counts
		s.Deliveries += c.deliveries.Load()
		s.Written += c.written.Load()
		s.Writes += c.writes.Load()
		s.Gaps += c.gaps.Load()
		for r := range reasons {
			s.Closed[r.String()] += c.closed[r].Load()
		}
		for i := range c.fanout {
			n := c.fanout[i].Load()
			s.FanoutCount += n
			for _, bound := range FanoutBounds[min(i, len(FanoutBounds)):] {
				s.Fanout[bound] += n
			}
		}
		s.FanoutSum += time.Duration(c.fanoutSum.Load()).Seconds()
	}
	return s
}

// Subscribers returns how many connections a channel has.
func (h *Hub) Subscribers(name string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	if ch := h.channels[name]; ch != nil {
		return ch.subscribers
	}
	return 0
}
