package redis

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
	"github.com/caddy-broadcast/caddy-broadcast/internal/envelope"
	"github.com/redis/rueidis"
)

const (
	// maxBatch is how many entries are stored together. The server does nothing else meanwhile, which is about 2 ms.
	maxBatch = 256

	// maxBatchBytes is how many bytes of data calls share. A call of its own may have more.
	maxBatchBytes = 1 << 20

	// maxCallBytes is how many bytes of a call are stored together. The server sends them to each subscriber at once, and cuts
	// one that lags by 32 MB (client-output-buffer-limit pubsub).
	maxCallBytes = 16 << 20
)

// call is a Publish that is not done. The publisher's lock guards it, until it is done.
type call struct {
	es       []broker.Entry
	done     func([]broker.Place, error)
	deadline time.Time
	next     int // how many are in batches already
	places   []broker.Place
	over     bool // done was called
}

// sentLocked reports whether a part of the call is in the batch that is under way. If so, the outcome of the batch decides how
// the call ends.
func (c *call) sentLocked() bool { return c.next > len(c.places) }

// rest returns the entries of the next part, and the bytes of their data.
func (c *call) rest() (es []broker.Entry, size int) {
	es = c.es[c.next:min(c.next+maxBatch, len(c.es))]
	for i := range es {
		if size += len(es[i].Data); size > maxCallBytes && i > 0 {
			return es[:i], size - len(es[i].Data)
		}
	}
	return es, size
}

// part is the entries of a call that are in one batch: all, or as many as a batch has.
type part struct {
	c  *call
	es []broker.Entry
}

// batch is what one run of the script stores.
type batch struct {
	number uint64
	parts  []part
	size   int // entries
	// An attempt may have stored it.
	attempted bool
	epoch     string // of that attempt
}

// publisher sends batches, one at a time: calls that come meanwhile share the next one. So their order is kept, and when a
// connection is lost the server only has to remember the last batch of each node to tell whether it was stored.
type publisher struct {
	l      *log
	signal chan struct{}
	number uint64 // of the last batch; the sender's

	mu      sync.Mutex
	session *session
	away    bool // the server could not be reached
	queue   []*call
	flying  *batch
	closed  bool
}

func (p *publisher) init(l *log) { p.l, p.signal = l, make(chan struct{}, 1) }

// wake has the sender look at what there is to do.
func (p *publisher) wake() {
	select {
	case p.signal <- struct{}{}:
	default:
	}
}

// Publish implements broker.Log.
func (l *log) Publish(es []broker.Entry, done func([]broker.Place, error)) {
	if len(es) == 0 {
		done(nil, nil)
		return
	}
	for i := range es {
		if len(es[i].Data) > maxData {
			done(nil, broker.ErrTooBig)
			return
		}
	}
	p := &l.publisher
	p.mu.Lock()
	closed, away := p.closed || l.closed.Load(), p.away
	if !closed && !away {
		p.queue = append(p.queue, &call{es: es, done: done, deadline: time.Now().Add(l.config.PublishTimeout)})
	}
	p.mu.Unlock()
	switch {
	case closed:
		done(nil, broker.ErrClosed)
	case away:
		done(nil, broker.ErrDown)
	default:
		p.wake()
	}
}

// use has the publisher send over a session that has caught up. leave ends that.
func (p *publisher) use(s *session) {
	p.mu.Lock()
	p.session, p.away = s, false
	p.mu.Unlock()
	p.wake()
}

func (p *publisher) leave(s *session) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.session == s {
		p.session = nil
	}
}

// refuse is told that the server cannot be reached. Calls that were not sent end at once, and later ones too.
func (p *publisher) refuse() {
	p.mu.Lock()
	p.away = true
	var calls []*call
	p.queue = slices.DeleteFunc(p.queue, func(c *call) bool {
		if c.sentLocked() {
			return false
		}
		calls = append(calls, c)
		return true
	})
	p.mu.Unlock()
	for _, c := range calls {
		p.fail(c, broker.ErrDown)
	}
}

// run is the sender.
func (p *publisher) run() {
	defer p.l.running.Done()
	clock := time.NewTimer(time.Hour)
	defer clock.Stop()
	for {
		p.mu.Lock()
		s, busy := p.session, len(p.queue) > 0 || p.flying != nil
		p.mu.Unlock()
		if s != nil && busy {
			p.round(s)
			continue
		}
		if busy {
			clock.Reset(p.expire(time.Now()))
		}
		select {
		case <-p.signal:
		case <-clock.C:
		case <-p.l.done:
			p.end()
			return
		}
	}
}

// expire ends calls that have waited too long for a session, and returns when to check again.
func (p *publisher) expire(now time.Time) time.Duration {
	next := p.l.config.PublishTimeout
	var failed []*call
	var errs []error
	p.mu.Lock()
	if b := p.flying; b != nil {
		left := false
		b.parts = slices.DeleteFunc(b.parts, func(part part) bool {
			c := part.c
			if !c.over && !now.After(c.deadline) {
				left, next = true, min(next, c.deadline.Sub(now))
				return false
			}
			if !c.over {
				failed, errs = append(failed, c), append(errs, unknownIf(b.attempted))
			}
			// One that was attempted is sent again as it was. Otherwise what was answered with ErrDown must not be stored later.
			if !b.attempted {
				b.size -= len(part.es)
			}
			return !b.attempted
		})
		if !left {
			p.flying = nil
		}
	}
	p.queue = slices.DeleteFunc(p.queue, func(c *call) bool {
		if !now.After(c.deadline) || c.sentLocked() {
			next = min(next, c.deadline.Sub(now))
			return false
		}
		failed, errs = append(failed, c), append(errs, broker.ErrDown)
		return true
	})
	p.mu.Unlock()
	for i, c := range failed {
		p.fail(c, errs[i])
	}
	return max(next, time.Millisecond)
}

// unknownIf is the error of entries that are not known to be stored. A publisher that gets ErrDown may publish again
// without a key.
func unknownIf(attempted bool) error {
	if attempted {
		return broker.ErrUnknown
	}
	return broker.ErrDown
}

// fail ends a call, of which some entries may be stored. The rest of it is not sent.
func (p *publisher) fail(c *call, err error) {
	p.mu.Lock()
	over, places := c.over, c.places
	c.over = true
	// Only a call of which a part was sent is still there. It is the first one, and there may be very many.
	if len(p.queue) > 0 && p.queue[0] == c {
		p.queue[0] = nil
		p.queue = p.queue[1:]
	}
	p.mu.Unlock()
	if over {
		return
	}
	if len(places) > 0 {
		err = &broker.PartialError{Places: places, Err: err}
	}
	c.done(nil, err)
}

// end answers everything when the log is closed.
func (p *publisher) end() {
	p.mu.Lock()
	p.closed = true
	var calls []*call
	if p.flying != nil {
		for _, part := range p.flying.parts {
			calls = append(calls, part.c)
		}
	}
	calls = append(calls, p.queue...)
	p.queue, p.flying = nil, nil
	p.mu.Unlock()
	for _, c := range calls {
		p.fail(c, broker.ErrUnknown)
	}
}

// take makes the next batch.
func (p *publisher) take() *batch {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.flying != nil || len(p.queue) == 0 {
		return p.flying
	}
	p.number++
	b := &batch{number: p.number}
	bytes, taken := 0, 0
	for _, c := range p.queue {
		es, size := c.rest()
		if len(b.parts) > 0 && (b.size+len(es) > maxBatch || bytes+size > maxBatchBytes) {
			break
		}
		b.parts = append(b.parts, part{c, es})
		b.size, bytes, c.next = b.size+len(es), bytes+size, c.next+len(es)
		// What comes after a call must not be stored before the rest of it.
		if c.next < len(c.es) {
			break
		}
		taken++
	}
	clear(p.queue[:taken])
	p.queue = p.queue[taken:]
	if len(p.queue) == 0 {
		p.queue = nil // the array of a burst is not kept
	}
	p.flying = b
	return b
}

// round stores a batch, or finds out that it cannot.
func (p *publisher) round(s *session) {
	b := p.take()
	if b == nil {
		return
	}
	if b.attempted && b.epoch != s.epoch {
		// What was stored in an epoch that has ended may be lost: see broker.Log.Publish.
		p.abandon(b, broker.ErrUnknown)
		return
	}
	now := time.Now()
	deadline := p.deadline(b, now.Add(p.l.config.PublishTimeout))
	if now.After(deadline) {
		p.expire(now)
		return
	}
	text, err := p.send(s, b, deadline)
	switch {
	case err == nil:
		p.l.refusesPublishing(nil)
		p.answered(s, b, text)
	case errors.Is(err, errReplicas), errors.Is(err, errMiddle):
		p.l.refusesPublishing(err)
		p.abandon(b, fmt.Errorf("%w (%w)", broker.ErrUnknown, err))
	case ends(err) && !errors.Is(err, errFence):
		_, refused := rueidis.IsRedisErr(err)
		if !refused {
			b.attempted, b.epoch = true, s.epoch
		}
		p.lost(s, "reconnect", err)
	case errors.Is(err, errFence):
		p.lost(s, "epoch", err)
	default:
		// The server has refused this attempt, and stored nothing of it.
		p.l.refusesPublishing(err)
		p.abandon(b, fmt.Errorf("%w (%w)", unknownIf(b.attempted), err))
	}
}

// deadline returns when the first call of a batch ends.
func (p *publisher) deadline(b *batch, deadline time.Time) time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, part := range b.parts {
		if !part.c.over && part.c.deadline.Before(deadline) {
			deadline = part.c.deadline
		}
	}
	return deadline
}

// lost ends a session. The batch is sent again over the next one.
func (p *publisher) lost(s *session, cause string, err error) {
	s.fail(cause, err)
	p.leave(s)
}

// abandon ends the calls of a batch.
func (p *publisher) abandon(b *batch, err error) {
	p.mu.Lock()
	p.flying = nil
	p.mu.Unlock()
	for _, part := range b.parts {
		p.fail(part.c, err)
	}
}

var (
	errReplicas = errors.New("not enough replicas have the message")
	errMiddle   = errors.New("the server refused a part of what was published")
)

// send runs the script, and waits until replicas have what it has stored.
func (p *publisher) send(s *session, b *batch, deadline time.Time) (string, error) {
	args := p.arguments(s, b)
	if p.l.config.Replicas <= 0 {
		if limit := time.Now().Add(requestTimeout); limit.Before(deadline) {
			deadline = limit
		}
	}
	// A second more: a deadline of the context ends the connection.
	ctx, cancel := context.WithDeadline(context.Background(), deadline.Add(time.Second))
	defer cancel()
	m, err := s.eval(ctx, s.write, publishScript, args, p.keys(s, b)...)
	if err != nil {
		return "", err
	}
	text, err := m.ToString()
	if err == nil && strings.HasPrefix(text, "U ") {
		return "", fmt.Errorf("%w: %s", errMiddle, text[2:])
	}
	if err != nil || len(text) < 2 || text[0] != 'K' {
		return "", errFence
	}
	if p.l.config.Replicas > 0 {
		wait := strconv.FormatInt(max(1, time.Until(deadline).Milliseconds()), 10)
		n, err := s.write.Do(ctx, s.write.B().Arbitrary("WAIT", strconv.Itoa(p.l.config.Replicas), wait).Blocking()).AsInt64()
		if _, refused := rueidis.IsRedisErr(err); refused || err == nil && n < int64(p.l.config.Replicas) {
			return "", errReplicas
		}
		if err != nil {
			return "", err
		}
	}
	return text[2:], nil
}

// keys returns what a cluster has to know: while it moves the log to another server, it refuses a batch of which something is
// here and something is there, or not there yet. Otherwise a part of it would be stored. Other servers need not be told.
func (p *publisher) keys(s *session, b *batch) (keys []string) {
	if !p.l.config.Cluster {
		return nil
	}
	streams, known := p.l.prefix+"h:"+s.incarnation+":", p.l.prefix+"k:"+s.incarnation+":"
	for _, part := range b.parts {
		for i := range part.es {
			e := &part.es[i]
			keys = append(keys, streams+e.Channel)
			if e.Key != [16]byte{} {
				keys = append(keys, known+string(e.Key[:]))
			}
		}
	}
	return keys
}

// arguments returns the arguments of the script.
func (p *publisher) arguments(s *session, b *batch) []string {
	args := append(s.args(3+len(b.parts)+4*b.size), p.l.id, strconv.FormatUint(s.generation, 10), strconv.FormatUint(b.number, 10))
	for _, part := range b.parts {
		args = append(args, strconv.Itoa(len(part.es)))
		for i := range part.es {
			e := &part.es[i]
			key, digest := "", ""
			if e.Key != [16]byte{} {
				key, digest = string(e.Key[:]), strconv.FormatUint(e.Digest, 10)
			}
			args = append(args, e.Channel, rueidis.BinaryString(envelope.Encode(e)), key, digest)
		}
	}
	return args
}

// answered returns their places to callers.
func (p *publisher) answered(s *session, b *batch, text string) {
	places, ok := parsePlaces(text, b.size)
	if !ok {
		p.abandon(b, fmt.Errorf("%w (the server's answer is not that of the script)", broker.ErrUnknown))
		return
	}
	p.mu.Lock()
	p.flying = nil
	p.mu.Unlock()
	p.l.during(s, func(over bool) {
		for _, part := range b.parts {
			n := len(part.es)
			p.stored(part.c, places[:n:n], over)
			places = places[n:]
		}
	})
}

// stored tells one caller, if that was the last part of the call.
func (p *publisher) stored(c *call, places []broker.Place, over bool) {
	switch {
	case over:
		p.fail(c, broker.ErrUnknown)
		return
	case places[0].Seq == 0:
		p.fail(c, broker.ErrConflict)
		return
	}
	p.mu.Lock()
	if c.places == nil {
		c.places = places
	} else {
		c.places = append(c.places, places...)
	}
	ready := len(c.places) == len(c.es) && !c.over
	c.over = c.over || ready
	p.mu.Unlock()
	if ready {
		c.done(c.places, nil)
	}
}
