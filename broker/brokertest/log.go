package brokertest

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
)

// memoryLog is one node's connection to a Memory. Its fields are guarded by Memory.clock.mu. Methods of the public interface
// take it. Functions that end in Locked are called by the clock's goroutine, which holds it, when a message arrives, or by
// those methods.
type memoryLog struct {
	memory *Memory
	broker *MemoryBroker
	sink   broker.Sink
	events *calls // of the sink, of Open and of Barrier: in one order
	acks   *calls // of Publish
	// Of broker.Peers: see peers.go.
	fromPeers      *calls
	node           uint64
	receiveMessage func(from uint64, message []byte) // or nil
	peerCalls      []*peerCall

	session *session // nil while it is not connected
	// Two events can begin it: the connection is lost, or an entry is found missing. One ends it.
	broken bool // from a doubt until attachedLocked
	// There are two because the sink is told by another goroutine, and an answer that comes between the two moments must
	// wait: rule 8 of package broker.
	epoch  epoch    // that the node knows
	told   told     // the same, when the sink knows it
	early  []func() // what came of an epoch that the node does not know yet
	closed bool

	// What the node has: everything up to certain; up to w all but what it has not missed yet.
	w, certain uint64
	// It is cleared each time that certain moves, or it would grow with every message. It exists because a repair reads from
	// certain on and must not give the sink an entry a second time.
	seen map[uint64]bool // what it has after certain
	got  uint64          // how many entries came since it was attached
	// It is what an entry's prev is compared with: a prev that is newer than it names an entry that did not come.
	last map[string]uint64 // each channel's newest entry since it was attached
	held []broker.Entry    // what came while broken

	subs      map[string]*subscription
	publishes []*publish
	reads     map[chan answer]bool

	// Callers of Barrier: whose exchange is on its way; who wait for the next; who wait until it is not broken any more.
	barriers, nextBarriers, afterRepair []func(uint64, error)

	problem string
	heard   time.Time
	repairs map[string]uint64
	queued  atomic.Int64
}

// subscription is one channel of an Open. Each call of Open makes new ones. So an answer that comes late, for a channel that
// was released and opened again, is recognized by the pointer.
type subscription struct {
	opening *opening
	open    bool
	at      uint64 // every entry after it is due
}

// opening is a call of Open that has not been answered.
type opening struct {
	left   int // how many channels are not open yet
	opened func(uint64, error)
}

// publish is a call of Publish that has no answer yet. It stays in memoryLog.publishes until then, so that a new connection
// can send it again.
type publish struct {
	entries []broker.Entry
	done    func([]broker.Place, error)
}

// answer is what Read and Last get, with the epoch that it is of.
type answer struct {
	epoch    epoch
	entries  []broker.Entry
	complete bool
	err      error
}

// newMemoryLog makes a log that is broken and without an epoch, as package broker asks of a Log that was just dialed.
func newMemoryLog(b *MemoryBroker, sink broker.Sink, o broker.Options) *memoryLog {
	return &memoryLog{
		memory: b.memory, broker: b, sink: sink, events: newCalls(), acks: newCalls(), broken: true,
		fromPeers: newCalls(), node: o.Node, receiveMessage: o.Message,
		told: told{changed: make(chan struct{})}, seen: make(map[uint64]bool), last: make(map[string]uint64), subs: make(map[string]*subscription),
		reads: make(map[chan answer]bool), repairs: make(map[string]uint64), problem: "never connected",
	}
}

// emit has the sink called, unless the log is closed first.
func (l *memoryLog) emit(call func()) {
	l.events.add(func(closed bool) {
		if !closed {
			call()
		}
	})
}

// answerWith has a callback of Open or Barrier called. It goes through the same queue as the sink's calls. So a position that
// is answered has been reached when the hub reads it: rules 1 and 3 of package broker.
func (l *memoryLog) answerWith(done func(uint64, error), at uint64, err error) {
	l.events.add(func(closed bool) {
		if closed && err == nil {
			at, err = 0, broker.ErrClosed
		}
		done(at, err)
	})
}

// Publish implements broker.Log.
func (l *memoryLog) Publish(es []broker.Entry, done func([]broker.Place, error)) {
	if err := l.send(&publish{es, done}); err != nil {
		done(nil, err)
	}
}

// send takes over a publish, or says why it cannot. ErrDown is true here, because nothing has left the node yet.
func (l *memoryLog) send(p *publish) error {
	m := l.memory
	m.clock.mu.Lock()
	defer m.clock.mu.Unlock()
	if limit := m.config.MaxData; limit > 0 && slices.ContainsFunc(p.entries, func(e broker.Entry) bool { return len(e.Data) > limit }) {
		return broker.ErrTooBig
	}
	switch {
	case l.closed:
		return broker.ErrClosed
	case l.session == nil:
		return broker.ErrDown
	}
	l.publishes = append(l.publishes, p)
	l.sendPublishLocked(p)
	// I6: what was sent may be stored, so it is not ErrDown.
	m.clock.after(m.config.PublishTimeout, func() { l.publishedLocked(p, nil, broker.ErrUnknown) })
	return nil
}

// sendPublishLocked sends a publish to the broker. The two faults are apart because they look the same to the publisher,
// ErrUnknown, and differ in what is stored.
func (l *memoryLog) sendPublishLocked(p *publish) {
	s, b := l.session, l.broker
	b.traffic.Publish.add(len(p.entries), size(p.entries))
	s.toBroker(func() {
		if b.losePublishes > 0 {
			b.losePublishes--
			return
		}
		places, err := l.memory.publish(p.entries)
		if b.losePlaces > 0 {
			b.losePlaces--
			return
		}
		epoch := l.memory.store.epoch
		b.traffic.Ack.add(1, 0)
		s.toNode(func() { l.ackedLocked(p, places, err, epoch) })
	})
}

// ackedLocked is told where entries were stored, and in which epoch. The ack of an epoch that the node does not know yet
// waits in early. The ack of one that has ended becomes ErrUnknown, because Rollback may have removed the entry: rule 7.
func (l *memoryLog) ackedLocked(p *publish, places []broker.Place, err error, e epoch) {
	if e.number > l.epoch.number {
		l.early = append(l.early, func() { l.ackedLocked(p, places, err, e) })
		return
	}
	if done := p.done; err == nil {
		p.done = func(places []broker.Place, err error) {
			if err != nil {
				done(places, err)
				return
			}
			l.told.during(e, func(over bool) {
				if over { // they may be lost
					places, err = nil, broker.ErrUnknown
				}
				done(places, err)
			})
		}
	}
	l.publishedLocked(p, places, err)
}

// publishedLocked answers a publish, unless it was answered already. A timeout and an ack may both come, and done is called
// once.
func (l *memoryLog) publishedLocked(p *publish, places []broker.Place, err error) {
	if i := slices.Index(l.publishes, p); i >= 0 {
		l.publishes = slices.Delete(l.publishes, i, i+1)
		done := p.done
		l.acks.add(func(bool) { done(places, err) })
	}
}

// Open implements broker.Log.
func (l *memoryLog) Open(channels []string, opened func(uint64, error)) {
	if !l.open(channels, opened) {
		opened(0, broker.ErrClosed) // there is no goroutine any more that would call it
	}
}

// open registers the channels, and reports false if the log is closed. The subscription begins at once at the broker, and
// what comes before its position only moves W.
func (l *memoryLog) open(channels []string, opened func(uint64, error)) bool {
	l.memory.clock.mu.Lock()
	defer l.memory.clock.mu.Unlock()
	if l.closed {
		return false
	}
	// There is nothing to ask the broker for, and left would never reach 0.
	if len(channels) == 0 {
		l.answerWith(opened, l.w, nil)
	}
	o := &opening{left: len(channels), opened: opened}
	subs := make(map[string]*subscription)
	for _, name := range channels {
		// The contract has an answer for each call of Open, so the one before gets one too.
		if old := l.subs[name]; old != nil {
			l.releaseLocked(old)
		}
		sub := &subscription{opening: o}
		l.subs[name], subs[name] = sub, sub
	}
	if s := l.session; s != nil {
		l.broker.traffic.Open.add(len(channels), names(channels))
		s.toBroker(func() { s.subscribe(subs) })
	}
	return true
}

// openedLocked is told that a session has subscribed to channels.
func (l *memoryLog) openedLocked(subs map[string]*subscription, at, due uint64) {
	l.heard = time.Now()
	if l.broken {
		return // what ends that opens them too
	}
	// The position is right only if everything before it has come: I1 would be broken by moving W over a hole.
	if due != l.got {
		l.repairLocked("tick")
		return
	}
	l.advanceLocked(at)
	l.openLocked(subs, at)
}

// openLocked opens channels that are not open yet and still wanted.
func (l *memoryLog) openLocked(subs map[string]*subscription, at uint64) {
	for name, sub := range subs {
		if l.subs[name] != sub || sub.open {
			continue
		}
		sub.open, sub.at = true, at
		if o := sub.opening; o.left > 0 {
			if o.left--; o.left == 0 {
				l.answerWith(o.opened, at, nil)
			}
		}
	}
}

// Release implements broker.Log.
func (l *memoryLog) Release(channels []string) {
	l.memory.clock.mu.Lock()
	defer l.memory.clock.mu.Unlock()
	for _, name := range channels {
		if sub := l.subs[name]; sub != nil {
			delete(l.subs, name)
			l.releaseLocked(sub)
		}
	}
	if s := l.session; s != nil {
		s.toBroker(func() {
			for _, name := range channels {
				delete(s.channels, name)
			}
		})
	}
}

// releaseLocked ends the Open of which a channel was released.
func (l *memoryLog) releaseLocked(sub *subscription) {
	if o := sub.opening; !sub.open && o.left > 0 {
		o.left = 0
		l.answerWith(o.opened, 0, broker.ErrClosed)
	}
}

// Barrier implements broker.Log.
func (l *memoryLog) Barrier(done func(uint64, error)) {
	l.memory.clock.mu.Lock()
	closed := l.closed
	switch {
	case closed:
	case l.session == nil:
		l.answerWith(done, 0, broker.ErrDown)
	default:
		l.nextBarriers = append(l.nextBarriers, done)
		l.askBarrierLocked()
	}
	l.memory.clock.mu.Unlock()
	if closed {
		done(0, broker.ErrClosed)
	}
}

// askBarrierLocked asks the broker for a tick, if none is on its way.
func (l *memoryLog) askBarrierLocked() {
	// Those that come while an exchange is on its way need the next one: the broker may have answered this one before
	// what they wait for was stored.
	if len(l.barriers) > 0 || len(l.nextBarriers) == 0 {
		return
	}
	l.barriers, l.nextBarriers = l.nextBarriers, nil
	s, barriers := l.session, l.barriers
	l.broker.traffic.Barrier.add(1, 0)
	s.toBroker(func() { s.tick(barriers) })
}

// tickLocked is told the newest position, and how many entries were sent until then.
func (l *memoryLog) tickLocked(at, due uint64, barriers []func(uint64, error)) {
	l.heard = time.Now()
	if len(barriers) > 0 {
		l.barriers = nil
		l.askBarrierLocked()
	}
	if !l.broken && due != l.got {
		l.repairLocked("tick")
	}
	if l.broken {
		l.afterRepair = append(l.afterRepair, barriers...)
		return
	}
	l.advanceLocked(at)
	l.certainLocked()
	l.passLocked(barriers, nil)
}

// passLocked answers callers of Barrier, with the position that W has now or with an error.
func (l *memoryLog) passLocked(barriers []func(uint64, error), err error) {
	for _, done := range barriers {
		at := l.w
		if err != nil {
			at = 0
		}
		l.answerWith(done, at, err)
	}
}

// Read implements broker.Log.
func (l *memoryLog) Read(ctx context.Context, channel string, after uint64, n, bytes int) ([]broker.Entry, bool, error) {
	a := l.ask(ctx, func() (a answer) {
		a.entries, a.complete = l.memory.store.read(channel, after, n, bytes)
		return a
	})
	return a.entries, a.complete, a.err
}

// Last implements broker.Log.
func (l *memoryLog) Last(ctx context.Context, channel string, n, bytes int) ([]broker.Entry, error) {
	a := l.ask(ctx, func() answer { return answer{entries: l.memory.store.newest(channel, n, bytes)} })
	return a.entries, a.err
}

// ask waits for what the broker answers.
func (l *memoryLog) ask(ctx context.Context, question func() answer) answer {
	// With room for the answer: the clock's goroutine must not wait for a reader that has given up.
	came := make(chan answer, 1)
	// What the sink was told, and not what the node knows: the contract compares with the former.
	asked := l.told.now()
	l.memory.clock.mu.Lock()
	s := l.session
	switch {
	case l.closed:
		came <- answer{err: broker.ErrClosed}
	case s == nil:
		came <- answer{err: broker.ErrDown}
	default:
		l.reads[came] = true
		s.toBroker(func() {
			a := question()
			a.epoch = l.memory.store.epoch
			l.broker.traffic.Read.add(1, size(a.entries))
			s.toNode(func() {
				if l.reads[came] {
					delete(l.reads, came)
					came <- a
				}
			})
		})
	}
	l.memory.clock.mu.Unlock()
	select {
	case a := <-came:
		if a.err == nil && (a.epoch != asked || l.told.now() != asked) {
			return answer{err: errEpoch}
		}
		return a
	case <-ctx.Done():
		l.memory.clock.mu.Lock()
		delete(l.reads, came)
		l.memory.clock.mu.Unlock()
		return answer{err: ctx.Err()}
	}
}

// failReadsLocked answers all reads. They are not asked again after a reconnect, unlike publishes: the caller is waiting, and
// knows best whether it still wants the answer.
func (l *memoryLog) failReadsLocked(err error) {
	for came := range l.reads {
		came <- answer{err: err}
	}
	clear(l.reads)
}

// Retain implements broker.Log.
func (l *memoryLog) Retain(r broker.Retention) {
	l.memory.clock.mu.Lock()
	defer l.memory.clock.mu.Unlock()
	if !l.closed {
		l.memory.store.retain(l, r)
	}
}

// Status implements broker.Log.
func (l *memoryLog) Status() broker.Status {
	m := l.memory
	m.clock.mu.Lock()
	defer m.clock.mu.Unlock()
	s := broker.Status{
		Up: !l.broken, Problem: l.problem, Heard: l.heard, MaxData: m.config.MaxData, QueueBytes: l.queued.Load(),
		Repairs: maps.Clone(l.repairs),
	}
	if l.session != nil {
		s.Server = "memory"
	}
	return s
}

// Close implements broker.Log.
func (l *memoryLog) Close() {
	m := l.memory
	m.clock.mu.Lock()
	if !l.closed {
		l.closed = true
		if l.session != nil {
			l.session.close()
			l.session = nil
		}
		l.broken, l.problem = true, "closed"
		l.failLocked(broker.ErrClosed, func(*publish) bool { return true })
		for _, sub := range l.subs {
			l.releaseLocked(sub)
		}
		l.broker.logs = slices.DeleteFunc(l.broker.logs, func(o *memoryLog) bool { return o == l })
		m.store.release(l)
	}
	m.clock.mu.Unlock()
	// Outside of the lock, since callbacks that are running may call the log.
	l.acks.close()
	l.fromPeers.close()
	l.events.close()
}

// failLocked answers those who wait for the broker: publishes for which it is true with ErrUnknown, others with err.
func (l *memoryLog) failLocked(err error, fails func(*publish) bool) {
	for _, p := range slices.Clone(l.publishes) {
		if fails(p) {
			l.publishedLocked(p, nil, broker.ErrUnknown)
		}
	}
	l.failReadsLocked(err)
	l.failPeersLocked(l.closed)
	l.passLocked(slices.Concat(l.afterRepair, l.barriers, l.nextBarriers), err)
	l.barriers, l.nextBarriers, l.afterRepair = nil, nil, nil
}

// sortedBySeq sorts entries, and drops those that are there twice.
func sortedBySeq(es []broker.Entry) []broker.Entry {
	slices.SortStableFunc(es, func(a, b broker.Entry) int { return cmp.Compare(a.Seq, b.Seq) })
	return slices.CompactFunc(es, func(a, b broker.Entry) bool { return a.Seq == b.Seq })
}
