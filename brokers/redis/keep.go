package redis

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
	"go.uber.org/zap"
)

// tickInterval is how often a node asks for the position of the log. W of a quiet node is behind by no more than that. A
// server that does not answer, or was flushed, is noticed in that time.
const tickInterval = time.Second

// catchUpTimeout limits one attempt to catch up. It has more time for each open channel: 250 are read at once, from a
// server that may be 10 ms away.
const (
	catchUpTimeout    = 30 * time.Second
	catchUpForChannel = 200 * time.Microsecond
)

// keep connects and catches up, again whenever a session has ended.
func (l *log) keep() {
	defer l.running.Done()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		<-l.done
		cancel()
	}()
	cause := "reconnect"
	for ctx.Err() == nil {
		s, err := l.up(ctx, cause)
		if err != nil {
			l.notUp(cause, err)
			if s != nil {
				s.close()
			}
			select {
			// At random, because all nodes have lost the server at the same moment.
			case <-time.After(100*time.Millisecond + rand.N(100*time.Millisecond)):
			case <-ctx.Done():
			}
			continue
		}
		l.watch(s)
		cause = l.down(s)
	}
}

// up makes a session that has caught up.
func (l *log) up(ctx context.Context, cause string) (*session, error) {
	l.mu.Lock()
	timeout := catchUpTimeout + time.Duration(len(l.channels))*catchUpForChannel
	l.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	dial, end := context.WithTimeout(ctx, 2*dialTimeout)
	defer end()
	s, err := l.begin(dial)
	if err != nil {
		return nil, err
	}
	return s, l.catchUp(ctx, s, cause)
}

// notUp says why there is no session.
func (l *log) notUp(cause string, err error) {
	if l.closed.Load() {
		return
	}
	l.setProblem(fmt.Sprint("not connected: ", err))
	l.publisher.refuse()
	if l.complaints.Fresh(err.Error(), time.Now()) {
		l.logger().Warn("cannot catch up with the broker", zap.String("cause", cause), zap.Error(err))
	}
}

// watch waits until a session is over, and ticks meanwhile.
func (l *log) watch(s *session) {
	clock := time.NewTicker(tickInterval)
	defer clock.Stop()
	for {
		select {
		case <-s.over:
			return
		case <-l.done:
			return
		case <-clock.C:
			l.applyRetention(s)
			l.Barrier(func(uint64, error) {})
			go l.lookAgain(s)
		}
	}
}

// down ends the use of a session, and returns why.
func (l *log) down(s *session) (cause string) {
	s.mu.Lock()
	cause = s.cause
	s.mu.Unlock()
	if cause == "" {
		cause = "reconnect"
	}
	l.mu.Lock()
	l.session, l.problem = nil, "catching up after: "+cause
	l.mu.Unlock()
	l.asker.wake() // to end those who wait
	l.publisher.leave(s)
	l.counters.leave(s)
	s.close()
	l.inReceiver(func() { l.fail(cause) })
	return cause
}

// retained is what the server keeps of each channel.
type retained struct {
	limit int   // messages
	ttl   int64 // milliseconds, 0 is no limit
}

// keptAtLeast is how long an entry is kept, so that nodes can catch up and keys are known.
const keptAtLeast = 2 * time.Minute

// retained returns what the log has to keep. One more than clients can resume from shows that nothing before it is missing.
func (l *log) retained() retained {
	l.mu.Lock()
	r := l.retention
	l.mu.Unlock()
	// As many as come in a moment, so that a node which connects again misses nothing even without a history.
	want := retained{limit: max(r.Messages, l.atLeast) + 1, ttl: max(r.Age, keptAtLeast).Milliseconds()}
	if r.Age == 0 && r.Messages > 0 {
		want.ttl = 0
	}
	return want
}

// minMessages is how many entries of a channel are kept for nodes that catch up. It is a variable for tests.
var minMessages = 100

// fresh reports whether the server has to be told what to keep, and not only that it is not less.
func (l *log) fresh() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.retain
}

// Retain implements broker.Log.
func (l *log) Retain(r broker.Retention) {
	l.mu.Lock()
	l.retention, l.retain = r, true
	s := l.session
	l.mu.Unlock()
	if s != nil {
		go l.applyRetention(s)
	}
}

// applyRetention tells the server what to keep, after Retain.
func (l *log) applyRetention(s *session) {
	if !l.fresh() {
		return
	}
	l.mu.Lock()
	l.retain = false
	l.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), requestTimeout)
	defer cancel()
	epoch, err := s.begin(ctx, l.retained(), true)
	if err == nil && epoch != s.epoch {
		err = errFence
	}
	if err != nil {
		l.mu.Lock()
		l.retain = true
		l.mu.Unlock()
		if ends(err) {
			s.fail("epoch", err)
		}
	}
}

// lookAgain calls look again while a session is used, because settings may change. It also checks the connection for
// requests, whose loss would otherwise be noticed only by the next reader, who gets an error. What it cannot find out stays
// as it was.
func (l *log) lookAgain(s *session) {
	ctx, cancel := context.WithTimeout(context.Background(), requestTimeout)
	defer cancel()
	if err := s.look(ctx); err != nil && ends(err) {
		s.fail("reconnect", err)
	}
}

// look finds out whether the server removes keys when its memory is full, and warns. It uses INFO and not CONFIG, which an
// account need not have.
func (s *session) look(ctx context.Context) error {
	policy, err := info(ctx, s.client, "memory", "maxmemory_policy")
	if err != nil {
		return err
	}
	s.evicts.Store(policy != "noeviction")
	if policy != "noeviction" && policy != "" && s.l.complaints.Fresh(policy, time.Now()) {
		s.l.logger().Warn("the broker's server removes messages when its memory is full, so clients may get gaps and messages may come twice",
			zap.String("maxmemory-policy", policy), zap.String("should be", "noeviction"))
	}
	return nil
}

// catchUp brings a session to where the log has everything up to a tick.
func (l *log) catchUp(ctx context.Context, s *session, cause string) error {
	var after uint64
	var same bool
	came := make(chan uint64, 1)
	nonce := repairNonce + s.generation
	open := l.inReceiver(func() {
		r := &l.receiver
		r.held, r.heldBytes = nil, 0 // of an attempt that failed
		r.session, r.repair, r.repaired = s, strconv.FormatUint(nonce, 10), func(seq uint64) { came <- seq }
		after, same = r.watermark, r.began && r.epoch == s.epoch
	})
	if !open {
		return broker.ErrClosed
	}
	if err := l.subscribeAll(ctx, s); err != nil {
		return err
	}
	if err := s.tick(ctx, nonce); err != nil {
		return err
	}
	var at uint64
	select {
	case at = <-came:
	case <-s.over:
		return s.err()
	case <-ctx.Done():
		return ctx.Err()
	}
	var missed []broker.Entry
	var lost []string
	// Another epoch: nothing that this node has is before anything there. All clients get a gap.
	if same && at > after {
		var err error
		if missed, lost, err = l.missed(ctx, s, after, at); err != nil {
			return err
		}
	}
	var err error
	if !l.inReceiver(func() { err = l.repaired(s, cause, at, missed, lost) }) {
		return broker.ErrClosed
	}
	return err
}

// repairNonce keeps the nonces of ticks that end catching up apart from those of the asker, which count from 1.
const repairNonce = 1 << 62

// subscribeAll subscribes a new session to everything that is open or being opened.
func (l *log) subscribeAll(ctx context.Context, s *session) error {
	commands := append(l.subscribeTo(s, l.put(s)), s.receive.B().Subscribe().Channel(l.own, l.peer, l.everybody).Build())
	for _, r := range s.receive.DoMulti(ctx, commands...) {
		if err := r.Error(); err != nil {
			return err
		}
	}
	return nil
}

// put notes that all channels are subscribed to on a session, and returns their names.
func (l *log) put(s *session) (names []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.channels {
		c.on = s
		names = append(names, c.name)
	}
	return names
}

// repaired gives the Sink what was missed, and then what was held. The receiver calls it.
func (l *log) repaired(s *session, cause string, at uint64, missed []broker.Entry, lost []string) error {
	r := &l.receiver
	select {
	case <-s.over:
		return s.err()
	default:
	}
	if r.session != s {
		return errors.New("something happened while the log caught up")
	}
	first := !r.began
	// First the epoch, because everything after it is of that: rule 7 of package broker. W begins there.
	l.telling.Lock()
	if r.epoch != s.epoch {
		r.began, r.epoch, r.watermark = true, s.epoch, at
		l.epochs++
		l.sink.Epoch(s.epoch, at)
	}
	s.number = l.epochs
	l.telling.Unlock()
	// Before the entries: the hub has to know of a hole before it delivers what is behind it.
	if len(lost) > 0 {
		l.sink.Lost(lost)
	}
	r.watermark = max(at, r.watermark)
	r.run.Missed(missed, r.watermark)
	l.mu.Lock()
	l.session, l.problem, l.heard = s, "", time.Now()
	l.epoch, l.certain = r.epoch, r.watermark
	// The first time is no repair.
	if !first {
		l.repairs[cause]++
	}
	openings := slices.Collect(maps.Keys(l.openings))
	l.mu.Unlock()
	// Before others are told that the log is up: they may publish at once.
	l.publisher.use(s)
	l.counters.use(s)
	r.broken = false
	l.sink.Repaired()
	for _, o := range openings {
		l.settleOpening(s, o, r.watermark)
	}
	l.logger().Info("the broker's log is up", zap.String("cause", cause), zap.Uint64("position", at), zap.Int("missed", len(missed)), zap.Int("lost", len(lost)))
	l.asker.wake()
	// Last, as ordinary messages after the repair: what is at or before at is dropped by its position.
	held := r.held
	r.held, r.heldBytes = nil, 0
	for _, it := range held {
		l.handle(it)
	}
	r.run.Flush()
	return nil
}

// settleOpening ends an opening whose channels are all subscribed to. Others came after that, and need a tick.
func (l *log) settleOpening(s *session, o *opening, at uint64) {
	l.mu.Lock()
	ready := true
	for _, c := range o.channels {
		ready = ready && c.on == s
	}
	l.mu.Unlock()
	if ready {
		l.endOpening(o, at, nil)
	} else {
		l.asker.joinOpening(o)
	}
}
