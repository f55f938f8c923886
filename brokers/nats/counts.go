package nats

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"time"

	natsgo "github.com/nats-io/nats.go"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
)

// Counts are in a stream of their own, <stream>_COUNTS, in the memory of the servers: one message for each channel and node,
// on the subject <prefix>.n.<channel>.<node>. So what the log does never waits for them.
//
// What is stored depends on the numbers that are set now, and not on those that were set before. A message replaces the one
// before it on its subject. A 0 expires after a second. All others expire after two hours, unless they are set again. Without that age, one old message would have
// the servers keep a bit for each of all that came after it and are gone (dmap of memStore in nats-server 2.15.2), and Forget
// would look at the position of each of them (PurgeEx there; 50 ns each).
const (
	// countAge is more than the contract asks for, because administrators may set the age of the stream to that.
	countAge = 2 * time.Hour
	zeroAge  = "1s"

	// maxFlying is how many numbers wait for an ack at once. More would not be faster (scaleout.md, section 3), and would stand
	// in the way of entries on the same connection.
	maxFlying = 256
)

// counts is the numbers of this node that are on their way.
type counts struct {
	l       *log
	inbox   string // what the subjects of acks begin with
	stream  string
	subject string // what subjects begin with
	asked   gather[[]string, []map[uint64]int]
	prepare prepare

	// mu guards what follows. No callback is called with it held, and it is held while a message goes to the library.
	mu      sync.Mutex
	numbers map[string]*number // by channel, those that are not stored yet
	queue   []string           // channels whose number has to be sent
	flying  map[uint64]*flight
	last    uint64
	timer   *time.Timer // runs while something flies
	closed  bool
}

// number is that of a channel. One message of it is under way at a time, so that the last one that was set stays, and what is
// set meanwhile is sent together: a broker that is slow gets fewer messages.
type number struct {
	value   int
	queued  bool
	flying  bool
	waiting []*setting // want the next message
}

// setting is a call of SetCounts.
type setting struct {
	left int
	err  error
	done func(error)
}

// flight is a message without its ack.
type flight struct {
	channel  string
	settings []*setting
	deadline time.Time
}

func (c *counts) init(l *log, inbox string) {
	c.l, c.inbox, c.stream, c.subject = l, inbox, l.config.Stream+"_COUNTS", l.config.Prefix+".n."
	c.numbers, c.flying = map[string]*number{}, map[uint64]*flight{}
	c.asked.limit, c.asked.fetch = maxAsked, c.fetch
}

// finished is callbacks that are due, and are called when the lock is free.
type finished []func()

func (f finished) call() {
	for _, done := range f {
		done()
	}
}

// settle tells a call that one of its channels is done.
func (f *finished) settle(settings []*setting, err error) {
	for _, s := range settings {
		if err != nil && s.err == nil {
			s.err = err
		}
		if s.left--; s.left == 0 {
			*f = append(*f, func() { s.done(s.err) })
		}
	}
}

// SetCounts implements broker.Peers.
func (l *log) SetCounts(numbers map[string]int, done func(error)) {
	if !l.peers.begin() {
		done(broker.ErrClosed)
		return
	}
	defer l.peers.end()
	l.peers.counts.set(numbers, done).call()
}

func (c *counts) set(numbers map[string]int, done func(error)) (f finished) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := &setting{left: len(numbers), done: done}
	switch {
	case c.closed:
		return finished{func() { done(broker.ErrClosed) }}
	case s.left == 0:
		return finished{func() { done(nil) }}
	}
	for channel, value := range numbers {
		n := c.numbers[channel]
		if n == nil {
			n = &number{}
			c.numbers[channel] = n
		}
		n.value = value
		n.waiting = append(n.waiting, s)
		c.queueLocked(channel, n)
	}
	c.pumpLocked(&f)
	return f
}

// queueLocked has a number sent, if that is not going to happen anyway.
func (c *counts) queueLocked(channel string, n *number) {
	if !n.queued && !n.flying {
		n.queued = true
		c.queue = append(c.queue, channel)
	}
}

// pumpLocked sends as much as may fly.
func (c *counts) pumpLocked(f *finished) {
	for len(c.queue) > 0 && len(c.flying) < maxFlying {
		channel := c.queue[0]
		c.queue = c.queue[1:]
		n := c.numbers[channel]
		if err := c.sendLocked(channel, n); err != nil {
			c.failLocked(f, err)
			return
		}
	}
	if len(c.queue) == 0 {
		c.queue = nil // or its array, which was as long as all channels, would stay
	}
	if len(c.flying) > 0 && c.timer == nil {
		c.timer = time.AfterFunc(c.l.config.PublishTimeout, c.expire)
	}
}

// sendLocked sends a number.
func (c *counts) sendLocked(channel string, n *number) error {
	c.last++
	m := &natsgo.Msg{
		Subject: c.subject + encodeCounted(channel) + "." + peerName(c.l.peers.node),
		Reply:   c.inbox + strconv.FormatUint(c.last, 36),
		Data:    strconv.AppendInt(nil, int64(n.value), 10),
	}
	if n.value == 0 {
		m.Header = natsgo.Header{"Nats-TTL": {zeroAge}}
	}
	if err := c.l.conn.PublishMsg(m); err != nil {
		return fmt.Errorf("%w (%w)", broker.ErrDown, err)
	}
	c.flying[c.last] = &flight{channel, n.waiting, time.Now().Add(c.l.config.PublishTimeout)}
	n.queued, n.flying, n.waiting = false, true, nil
	return nil
}

// handle takes an ack. The library calls it, in one goroutine for all.
func (c *counts) handle(m *natsgo.Msg) {
	if len(m.Subject) < len(c.inbox) {
		return
	}
	id, err := strconv.ParseUint(m.Subject[len(c.inbox):], 36, 64)
	if err != nil || !c.l.peers.begin() {
		return // close answers who waits
	}
	defer c.l.peers.end()
	c.land(id, c.refused(m)).call()
}

// refused returns why a number was not stored.
func (c *counts) refused(m *natsgo.Msg) error {
	a, ok := c.l.publisher.parse(m)
	switch {
	case !ok: // there is no such stream, or it has no leader
		c.prepare.start(c)
		return fmt.Errorf("%w (nobody stores counts)", broker.ErrDown)
	case a.Error != nil:
		return fmt.Errorf("%w (%w)", broker.ErrDown, a.Error)
	}
	return nil
}

// land ends a flight, and lets others begin.
func (c *counts) land(id uint64, err error) (f finished) {
	c.mu.Lock()
	defer c.mu.Unlock()
	flight := c.flying[id]
	if flight == nil {
		return nil // it was given up
	}
	delete(c.flying, id)
	n := c.numbers[flight.channel]
	n.flying = false
	f.settle(flight.settings, err)
	if len(n.waiting) > 0 {
		c.queueLocked(flight.channel, n)
	} else {
		delete(c.numbers, flight.channel)
	}
	c.pumpLocked(&f)
	return f
}

// expire gives up everything if something has waited for its ack too long: a broker that does not answer one number does not
// answer the next either.
func (c *counts) expire() {
	if !c.l.peers.begin() {
		return
	}
	defer c.l.peers.end()
	var f finished
	c.mu.Lock()
	c.timer = nil
	at := time.Now()
	for _, flight := range c.flying {
		if !at.Before(flight.deadline) {
			c.failLocked(&f, broker.ErrDown)
			break
		}
	}
	if len(c.flying) > 0 {
		c.timer = time.AfterFunc(c.l.config.PublishTimeout/4, c.expire)
	}
	c.mu.Unlock()
	f.call()
}

// fail gives up everything, because the connection is lost.
func (c *counts) fail() {
	if !c.l.peers.begin() {
		return
	}
	defer c.l.peers.end()
	var f finished
	c.mu.Lock()
	c.failLocked(&f, broker.ErrDown)
	c.mu.Unlock()
	f.call()
}

// failLocked ends all calls, those whose numbers may be stored with ErrUnknown.
func (c *counts) failLocked(f *finished, err error) {
	unknown := err
	if !c.closed {
		unknown = broker.ErrUnknown
	}
	for _, flight := range c.flying {
		f.settle(flight.settings, unknown)
	}
	for _, n := range c.numbers {
		f.settle(n.waiting, err)
	}
	clear(c.flying)
	clear(c.numbers)
	c.queue = nil
}

// close ends all calls with ErrClosed.
func (c *counts) close() {
	var f finished
	c.mu.Lock()
	c.closed = true
	c.failLocked(&f, broker.ErrClosed)
	if c.timer != nil {
		c.timer.Stop()
	}
	c.mu.Unlock()
	f.call()
}

// Counts implements broker.Peers. Calls at the same time share requests.
func (l *log) Counts(channels []string, done func([]map[uint64]int, error)) {
	if !l.peers.begin() {
		done(nil, broker.ErrClosed)
		return
	}
	if !l.conn.IsConnected() {
		l.peers.end()
		done(nil, broker.ErrDown)
		return
	}
	go func() {
		defer l.peers.end()
		all, err := l.peers.counts.asked.ask(context.Background(), l, channels)
		done(all, wrapDown(err))
	}()
}
