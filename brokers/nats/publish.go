package nats

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
	"github.com/caddy-broadcast/caddy-broadcast/internal/envelope"
	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nuid"
)

// maxHeaders is more than the headers that are sent need.
// Those of a batch are the longest: about 150 bytes with both ids, the number and the end mark.
const maxHeaders = 256

// retryDelay is how long to wait when the stream has no leader.
// An election takes 4 to 9 seconds (minElectionTimeoutDefault in nats-server 2.15.2), so asking more often gains little. A
// leader that is moved on purpose is back sooner, so it is not seconds either.
const retryDelay = 200 * time.Millisecond

// pendingDelay is how long to wait when an entry with the same key is being stored, for another node, which takes the servers
// about as long. Meanwhile all that this node publishes waits behind it.
const pendingDelay = 5 * time.Millisecond

// publisher sends entries in the order of the calls, and awaits their acks.
//
// Each entry has a Nats-Msg-Id, even without a key, so that what was not confirmed can be sent again over the next connection
// without being stored twice. It is paid with 13 % of the throughput of a server (scaleout.md, section 2.4).
type publisher struct {
	l      *log
	inbox  string // what the subjects of acks begin with
	prefix string // of the ids of entries without a key
	ok     []byte // what a good ack begins with

	// mu guards what follows. It is held while a message goes to the library, so that messages leave in the order of their
	// ids.
	mu         sync.Mutex
	last       uint64
	stored     uint64 // the newest of those that are stored
	pending    map[uint64]*pending
	generation uint64 // of the connection that entries are sent over, 0 if there is none
	retryAt    time.Time
	busy       bool // a call with several entries is under way, and later ones wait
	waiting    []call
	closed     bool
	timed      bool // expire will run
}

// call is one call of Publish. Whoever takes it has to call done once, and without the lock, because done may publish
// again.
type call struct {
	es   []broker.Entry
	done func([]broker.Place, error)
}

// pending is a message without its ack.
type pending struct {
	id       uint64
	m        *natsgo.Msg
	deadline time.Time
	sent     bool // and it may be stored
	retry    bool // it has to be sent again
	done     func(ack, error)
}

// ack is JetStream's answer to a message.
type ack struct {
	Stream    string    `json:"stream"`
	Seq       uint64    `json:"seq"`
	Duplicate bool      `json:"duplicate"`
	Count     int       `json:"count"`
	Error     *apiError `json:"error"`
}

// init prepares the publisher. It comes before the connection, whose handlers may call the publisher as soon as there is
// one.
func (p *publisher) init(l *log, inbox string) {
	p.l, p.inbox, p.prefix = l, inbox, nuid.Next()[10:]
	p.pending = map[uint64]*pending{}
	// The server makes this part of an ack once for each stream, and adds the number (pubAck in stream.go of nats-server
	// 2.15.2).
	p.ok = []byte(`{"stream":"` + l.config.Stream + `","seq":`)
}

// Publish implements broker.Log. If nothing is sent then done is called before it returns.
func (l *log) Publish(es []broker.Entry, done func([]broker.Place, error)) {
	// Without a connection the limit is not known, and the answer will be ErrDown anyway.
	limit := 0
	if l.conn.IsConnected() {
		limit = int(l.conn.MaxPayload())
	}
	// All are checked before any is sent: a call is published as a whole, or not at all.
	for i := range es {
		if size := envelope.MaxSize + len(es[i].Data) + maxHeaders; limit > 0 && size > limit {
			done(nil, fmt.Errorf("%w: it takes %d bytes, and may take %d", broker.ErrTooBig, size, limit))
			return
		}
	}
	if len(es) == 0 {
		done(nil, nil)
		return
	}
	l.publisher.publish(call{es, done})
}

// publish decides on the order. Several goroutines may call it, and the one that gets the lock first is first in the log.
func (p *publisher) publish(c call) {
	p.mu.Lock()
	switch {
	case p.closed:
		p.mu.Unlock()
		c.done(nil, broker.ErrClosed)
	// Not until the log has caught up on this connection. An entry that is sent now could overtake one that was sent over
	// the last connection, has no ack, and is sent again by resume.
	case p.generation == 0 || p.generation != p.l.generation.Load():
		p.mu.Unlock()
		c.done(nil, broker.ErrDown)
	// Order is that of the calls, so one that comes after a batch waits for it.
	case p.busy:
		p.waiting = append(p.waiting, c)
		p.mu.Unlock()
	case len(c.es) > 1:
		// A batch waits for answers, and Publish may not block, so it has a goroutine of its own.
		p.busy = true
		p.mu.Unlock()
		go p.several(c)
	default:
		err := p.oneLocked(c)
		p.mu.Unlock()
		if err != nil {
			c.done(nil, err)
		}
	}
}

// oneLocked sends a call with one entry.
func (p *publisher) oneLocked(c call) error {
	e := c.es[0]
	m := &natsgo.Msg{Subject: p.l.store + encodeChannel(e.Channel), Data: envelope.Encode(&e)}
	m.Header = natsgo.Header{natsgo.MsgIdHdr: {p.msgID(&e)}}
	return p.sendLocked(m, func(a ack, err error) { p.finish(c, a, err) })
}

// msgID returns what the stream recognizes an entry by.
func (p *publisher) msgID(e *broker.Entry) string {
	if e.Key != [16]byte{} {
		return hex.EncodeToString(e.Key[:])
	}
	// The prefix is random for each log, so that no two of them, of one node or of several, use the same id within the
	// stream's window.
	return p.prefix + strconv.FormatUint(p.last+1, 36)
}

// sendLocked sends a message and awaits its ack. An error means that nothing was sent, and done is not called.
func (p *publisher) sendLocked(m *natsgo.Msg, done func(ack, error)) error {
	p.last++
	w := &pending{id: p.last, m: m, deadline: time.Now().Add(p.l.config.PublishTimeout), done: done}
	m.Reply = p.inbox + strconv.FormatUint(w.id, 36)
	// While something waits to be sent again, later messages wait behind it: sent at once they would be stored before it.
	if !p.retryAt.IsZero() {
		w.retry = true // behind those that are sent again
	} else if err := p.transmit(w); err != nil {
		return err
	}
	// The ack cannot come too early for this: handle waits for the lock.
	p.pending[w.id] = w
	if !p.timed {
		p.timed = true
		time.AfterFunc(p.l.config.PublishTimeout+expireDelay, p.expire)
	}
	return nil
}

// transmit hands a message to the client library.
// The errors that are told apart come before the library has written a byte (Conn.publish in nats.go 1.55). So nothing is
// stored, and I6 allows ErrDown.
func (p *publisher) transmit(w *pending) error {
	err := p.l.conn.PublishMsg(w.m)
	switch {
	case err == nil:
		w.sent = true
	case errors.Is(err, natsgo.ErrMaxPayload):
		return broker.ErrTooBig
	case errors.Is(err, natsgo.ErrReconnectBufExceeded), errors.Is(err, natsgo.ErrConnectionClosed), errors.Is(err, natsgo.ErrConnectionReconnecting):
		return broker.ErrDown
	default:
		w.sent = true // a part of it may be on its way
	}
	return nil
}

// handle takes an ack.
// The library calls it, in one goroutine for all acks, so it waits for nothing.
func (p *publisher) handle(m *natsgo.Msg) {
	if len(m.Subject) < len(p.inbox) {
		return
	}
	id, err := strconv.ParseUint(m.Subject[len(p.inbox):], 36, 64)
	if err != nil {
		return
	}
	a, ok := p.parse(m)
	p.mu.Lock()
	w := p.pending[id]
	// The ack of an attempt that was given up, or the second one of two attempts.
	if w == nil {
		p.mu.Unlock()
		return
	}
	// The id may also be marked as being stored, without a position yet (checkMsgHeadersPreClusteredProposal in nats-server
	// 2.15.2). Asking again gets the position.
	if !ok || a.Error != nil && (a.Error.Code == 503 || a.Error.ErrCode == codeDuplicatePending) {
		// There is no leader, so this attempt is not stored. An earlier one may be.
		w.retry = true
		if p.retryAt.IsZero() {
			delay := retryDelay
			if a.Error != nil && a.Error.ErrCode == codeDuplicatePending {
				delay = pendingDelay
				time.AfterFunc(delay+time.Millisecond, func() { p.l.keeper.wake(nil) })
			}
			p.retryAt = time.Now().Add(delay)
		}
		p.mu.Unlock()
		return
	}
	delete(p.pending, id)
	if a.Error == nil {
		// retryLocked needs it, to keep the order.
		p.stored = max(p.stored, id)
	}
	p.mu.Unlock()
	w.done(a, nil)
}

// parse reads an ack. It is false if nobody stores messages at the moment.
func (p *publisher) parse(m *natsgo.Msg) (a ack, ok bool) {
	// Most acks are as the server writes them, so they are read without the JSON package, which costs more than the rest
	// of this function. Any other form, such as one with a domain or a duplicate, is read below.
	if rest, found := bytes.CutPrefix(m.Data, p.ok); found {
		if digits, found := bytes.CutSuffix(bytes.TrimSpace(rest), []byte("}")); found {
			if seq, err := strconv.ParseUint(string(bytes.TrimSpace(digits)), 10, 64); err == nil {
				return ack{Seq: seq}, true
			}
		}
	}
	// Without data it is the status 503, by which a server says that nobody listens on the subject: there is no stream, or
	// no leader of it (client.go of nats-server 2.15.2).
	if len(m.Data) == 0 || json.Unmarshal(m.Data, &a) != nil {
		return a, false
	}
	return a, a.Seq > 0 || a.Error != nil
}

// finish tells a caller what became of its entry.
func (p *publisher) finish(c call, a ack, err error) {
	switch {
	case err != nil:
		c.done(nil, err)
	case a.Error != nil:
		c.done(nil, refused(a.Error))
	// Only with a key. Without one nobody else knows the id, so the duplicate is an earlier attempt of this call.
	case a.Duplicate && c.es[0].Key != [16]byte{}:
		go func() { // it reads from the stream
			place, err := p.compare(&c.es[0], a.Seq)
			if err != nil {
				c.done(nil, err)
				return
			}
			c.done([]broker.Place{place}, nil)
		}()
	default:
		c.done([]broker.Place{{Seq: a.Seq}}, nil)
	}
}

// refused makes the server's refusal an error of the contract. It is ErrDown for most, such as a limit of the account:
// nothing was stored, and a later attempt may succeed. A full disk is no refusal: nats-server does not answer then.
func refused(e *apiError) error {
	if e.ErrCode == codeTooBig {
		return fmt.Errorf("%w (%w)", broker.ErrTooBig, e)
	}
	return fmt.Errorf("%w (%w)", broker.ErrDown, e)
}

// compare tells whether the entry that a key belongs to is the same as another. If it is gone then it counts as the same.
func (p *publisher) compare(e *broker.Entry, seq uint64) (broker.Place, error) {
	ctx, cancel := context.WithTimeout(context.Background(), p.l.config.PublishTimeout)
	defer cancel()
	place := broker.Place{Seq: seq, Repeated: true}
	// The leader is asked, since another replica may not have it yet.
	stored, ok, err := p.l.leaderGet(ctx, getRequest{Seq: seq})
	if err == nil && !ok {
		return place, nil
	}
	if err != nil {
		// An entry with the key is stored. Whether it is the same one could not be found out.
		return place, fmt.Errorf("%w (%w)", broker.ErrUnknown, err)
	}
	var first broker.Entry
	// The digest and not the data: the same content may be encoded in another way, and the hub has decided already what
	// counts as the same.
	if envelope.Decode(stored.Message.Data, &first) && first.Digest != e.Digest {
		return place, broker.ErrConflict
	}
	place.Time = stored.Message.Time.UnixMilli()
	return place, nil
}

// tend sends again what has to be, and ends what waits too long.
// The keeper calls it, so it may be late by as long as the keeper sleeps or catches up.
func (p *publisher) tend(now time.Time) {
	p.mu.Lock()
	failed := p.overdueLocked(now)
	if !p.retryAt.IsZero() && now.After(p.retryAt) && p.generation != 0 {
		failed = append(failed, p.retryLocked()...)
	}
	p.mu.Unlock()
	p.fail(failed)
}

// awaits reports whether a message has no ack yet.
// The keeper looks more often then: see log.pause.
func (p *publisher) awaits() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.pending) > 0
}

// fail ends messages that get no ack, in the order of the calls, which the map has not kept.
func (p *publisher) fail(failed []*pending) {
	slices.SortFunc(failed, func(a, b *pending) int { return int(int64(a.id) - int64(b.id)) })
	for _, w := range failed {
		// I6: nobody is told that nothing was published who may have published. ErrDown may be tried again without a key,
		// and ErrUnknown may not.
		if w.sent {
			w.done(ack{}, broker.ErrUnknown)
		} else {
			w.done(ack{}, broker.ErrDown)
		}
	}
}

// retryLocked sends messages again, in their order. It returns those that must not be sent, as a later one is stored: they
// would come after it.
func (p *publisher) retryLocked() (failed []*pending) {
	p.retryAt = time.Time{}
	ids := make([]uint64, 0, len(p.pending))
	for id, w := range p.pending {
		if w.retry {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	for _, id := range ids {
		w := p.pending[id]
		if id < p.stored {
			failed = append(failed, w)
			delete(p.pending, id)
			continue
		}
		w.retry = false
		if p.transmit(w) != nil {
			w.retry = true
			p.retryAt = time.Now().Add(retryDelay)
		}
	}
	return failed
}

// resume sends over a new connection what has no ack.
// The receiver calls it, when the log has caught up. What is sent again has its id still, so the stream answers with the
// first position if it had stored the entry: I6.
func (p *publisher) resume(generation uint64) {
	p.mu.Lock()
	if p.generation == generation || p.closed {
		p.mu.Unlock()
		return
	}
	p.generation = generation
	for _, w := range p.pending {
		w.retry = true
	}
	failed := p.retryLocked()
	p.mu.Unlock()
	p.fail(failed)
}

// close ends all calls. Later ones get ErrClosed.
func (p *publisher) close() {
	p.mu.Lock()
	p.closed = true
	var failed []*pending
	for id, w := range p.pending {
		w.sent = true
		failed = append(failed, w)
		delete(p.pending, id)
	}
	// These were not sent, so it is known that they are not stored.
	waiting := p.waiting
	p.waiting = nil
	p.mu.Unlock()
	p.fail(failed)
	for _, c := range waiting {
		c.done(nil, broker.ErrClosed)
	}
}

// await sends a message and waits for its ack.
// It blocks, so it is only called by goroutines that publish a batch.
func (p *publisher) await(m *natsgo.Msg) (ack, error) {
	type result struct {
		a   ack
		err error
	}
	ch := make(chan result, 1)
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return ack{}, broker.ErrClosed
	}
	err := p.sendLocked(m, func(a ack, err error) { ch <- result{a, err} })
	p.mu.Unlock()
	if err != nil {
		return ack{}, err
	}
	r := <-ch
	return r.a, r.err
}

// ask sends a message beside the entries, and waits for its ack. It does not wait until the log has caught up.
func (p *publisher) ask(m *natsgo.Msg) (a ack, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), requestTimeout)
	defer cancel()
	reply, ch, end := p.l.requests.open(1)
	defer end()
	m.Reply = reply
	lost := p.l.requests.connection()
	if err := p.l.conn.PublishMsg(m); err != nil {
		return a, err
	}
	select {
	case m := <-ch:
		a, ok := p.parse(m)
		if !ok {
			return a, broker.ErrDown
		}
		return a, nil
	case <-ctx.Done():
		return a, errNoReply
	case <-lost:
		return a, errLost
	case <-p.l.done:
		return a, broker.ErrClosed
	}
}

// drain goes on with the calls that waited for one with several entries.
// Only the goroutine of a batch calls it, which has set busy, so there is one at a time.
func (p *publisher) drain() {
	for {
		p.mu.Lock()
		if len(p.waiting) == 0 || p.closed {
			p.busy = false
			p.mu.Unlock()
			return
		}
		c := p.waiting[0]
		p.waiting = p.waiting[1:]
		if len(c.es) > 1 {
			p.mu.Unlock()
			// Not called, because it calls drain at its end: many batches would make a deep stack.
			go p.several(c)
			return
		}
		err := p.oneLocked(c)
		p.mu.Unlock()
		if err != nil {
			c.done(nil, err)
		}
	}
}

// isZero reports whether an entry has no key.
func isZero(key [16]byte) bool { return key == [16]byte{} }
