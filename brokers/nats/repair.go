package nats

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
	natsgo "github.com/nats-io/nats.go"
	"go.uber.org/zap"
)

// keeper is what the goroutine that catches up keeps.
// mu guards what others leave for it. The fields after those are its own.
type keeper struct {
	signal chan struct{}

	mu     sync.Mutex
	cause  string    // why the log has to catch up, "" if it does not
	retain bool      // the retention changed
	noteAt time.Time // when to note that the stream's limit has changed
	again  bool      // something came up while it was catching up

	repairs uint64 // counts, for the nonces of ticks
	epochs  uint64 // how many epochs there were before the last one that was seen
}

// init makes room for one signal. The keeper looks at everything when it is woken, so a second one would say no more.
func (k *keeper) init() { k.signal = make(chan struct{}, 1) }

// wake sets a flag and has the keeper look at it.
func (k *keeper) wake(flag *bool) {
	k.mu.Lock()
	if flag != nil {
		*flag = true
	}
	k.mu.Unlock()
	select {
	case k.signal <- struct{}{}:
	default:
	}
}

// noteLater has the keeper note the limit when all replicas know it. The first call counts, or a node that is reloaded
// often would never note it.
func (k *keeper) noteLater(now time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.noteAt.IsZero() {
		k.noteAt = now.Add(limitDelay)
	}
}

// noted ends what noteLater began.
func (k *keeper) noted() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.noteAt = time.Time{}
}

// broke has the keeper catch up.
func (l *log) broke(cause string) {
	l.keeper.catchUp(cause)
	l.keeper.wake(&l.keeper.again)
}

// catchUp sets the cause, without waking the keeper.
func (k *keeper) catchUp(cause string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	// The first cause counts in the metrics. The others are mostly its consequences.
	if k.cause == "" {
		k.cause = cause
	}
}

// connected and disconnected are called by the client library, later than the connection is used.
func (l *log) connected() {
	l.keeper.catchUp("reconnect")
	l.keeper.wake(nil)
}

// disconnected ends those who wait for ticks, except openings. Those of the old connection may never come.
func (l *log) disconnected(err error) {
	if l.closed.Load() {
		return
	}
	l.barriers.fail(broker.ErrDown, false)
	l.marks.fail(broker.ErrDown, false)
	l.peers.counts.fail()
	// The receiver stops when the next connection is dialled. It has to be now: nothing comes until then.
	l.queue.push(func() { l.fail("reconnect"); l.notConnected(err) })
}

// keep connects, ticks, and catches up when something is missing.
func (l *log) keep() {
	defer l.running.Done()
	// 0, so that the first round is at once.
	clock := time.NewTimer(0)
	defer clock.Stop()
	var at schedule
	at.after(time.Now())
	for {
		select {
		case <-l.done:
			return
		case <-l.keeper.signal:
		case <-clock.C:
		}
		now := time.Now()
		l.barriers.tend(now)
		l.marks.tend(now)
		l.publisher.tend(now)
		if l.conn.IsConnected() {
			l.keepUp(now, &at)
		} else {
			l.notConnected(l.conn.LastError())
		}
		clock.Reset(l.pause())
	}
}

// pause is how long the keeper sleeps. It looks often only while somebody waits for something that may have to be sent again:
// 20 wake-ups a second were more than half of the CPU time of an idle node (3 nodes: 14 ms a second, and 6.5 with 4).
func (l *log) pause() time.Duration {
	l.keeper.mu.Lock()
	busy := l.keeper.cause != ""
	l.keeper.mu.Unlock()
	if busy || l.barriers.busy() || l.marks.busy() || l.publisher.awaits() {
		return 50 * time.Millisecond
	}
	return tickInterval / 2
}

// schedule is when the keeper does what it does without a cause.
type schedule struct{ retry, tick, audit, anchor time.Time }

// after is the schedule of a log that has caught up, or failed to, and published an anchor.
func (s *schedule) after(now time.Time) {
	s.tick, s.audit, s.anchor = now, nextAudit(now), nextAnchor(now)
}

// keepUp does what is due, the most urgent first.
func (l *log) keepUp(now time.Time, at *schedule) {
	l.keeper.mu.Lock()
	cause, retain, noteAt := l.keeper.cause, l.keeper.retain, l.keeper.noteAt
	l.keeper.mu.Unlock()
	// One thing at a time: catching up takes so long that the rest has to be looked at anew.
	switch {
	case cause != "":
		if now.Before(at.retry) {
			return
		}
		err := l.recover(cause)
		if errors.Is(err, errAgain) {
			return // at once
		}
		if err != nil {
			l.setProblem(err.Error())
			if !l.closed.Load() && l.complaints.Fresh(err.Error(), now) {
				l.logger().Warn("cannot catch up with the broker", zap.String("cause", cause), zap.Error(err))
			}
			// At random, because all nodes have lost the broker at the same moment.
			at.retry = now.Add(100*time.Millisecond + rand.N(200*time.Millisecond))
		}
		at.after(time.Now())
	case retain:
		l.applyRetention()
	case !noteAt.IsZero() && now.After(noteAt):
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		l.noteLimit(ctx)
	case now.After(at.audit):
		l.audit()
		at.audit = nextAudit(now)
	case now.After(at.anchor):
		l.sendAnchor(now)
		at.anchor = nextAnchor(now)
	case now.After(at.tick):
		at.tick = l.tickIfSilent(now)
	}
}

// nextAnchor is at most one interval away, so each slot gets its anchor from somebody. It is at random, so that not all
// nodes publish at once.
func nextAnchor(now time.Time) time.Time { return now.Add(anchorInterval/2 + rand.N(anchorInterval/2)) }

// nextAudit is a minute away on average, at random for the same reason.
func nextAudit(now time.Time) time.Time { return now.Add(45*time.Second + rand.N(30*time.Second)) }

// tickIfSilent publishes a tick if no node has, and returns when to look again. If none comes for seconds although this node
// publishes some, then the path is broken.
func (l *log) tickIfSilent(now time.Time) time.Time {
	l.mu.Lock()
	heard := l.lastTick
	l.mu.Unlock()
	// Six, so that one that is lost or late is no reason to hold up all clients of the node.
	if now.Sub(heard) > 6*tickInterval {
		l.queue.push(func() { l.fail("tick") })
		return now.Add(tickInterval)
	}
	due := heard.Add(tickInterval/2 + rand.N(tickInterval))
	if now.Before(due) {
		return due
	}
	l.sendTick(0)
	return now.Add(tickInterval)
}

// applyRetention changes the stream after Retain. The flag is cleared first, so that another change meanwhile is not
// forgotten.
func (l *log) applyRetention() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	l.keeper.mu.Lock()
	l.keeper.retain = false
	l.keeper.mu.Unlock()
	if _, err := l.ensure(ctx); err != nil && !l.closed.Load() {
		l.logger().Error("the broker's stream cannot be changed", zap.Error(err))
	}
}

// inReceiver does something between two messages, and waits for it. It is false if the log is closed.
func (l *log) inReceiver(do func()) bool {
	done := make(chan struct{})
	if !l.queue.push(func() { do(); close(done) }) {
		return false
	}
	select {
	case <-done:
		return true
	case <-l.done:
		return false
	}
}

// recover brings the log to where it has everything up to a tick.
func (l *log) recover(cause string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	failed := l.inReceiver(func() {
		l.fail(cause)
		l.keeper.mu.Lock()
		l.keeper.again = false
		l.keeper.mu.Unlock()
	})
	if !failed {
		return nil
	}
	// All that follows has to happen over one connection. repaired looks whether it has.
	generation := l.generation.Load()
	// The stream first, and its epoch: while it is not there, or has lost something, nothing that is read of it means
	// anything.
	info, err := l.ensure(ctx)
	if err != nil {
		return err
	}
	epoch, err := l.settleEpoch(ctx, info)
	if err != nil {
		return err
	}
	l.sendAnchor(time.Now()) // before any position that this node gives
	at, err := l.repairTick(ctx)
	if err != nil {
		return err
	}
	missed, lost, err := l.missed(ctx, epoch, at)
	if err != nil {
		return err
	}
	if !l.inReceiver(func() { err = l.repaired(cause, generation, epoch, at, missed, lost) }) {
		return nil // closed, and it may be under way
	}
	return err
}

// repairTick publishes a tick, and waits until it comes the way that entries come.
// Its ack would only show that the leader has it. This shows that the node hears what the leader sends.
func (l *log) repairTick(ctx context.Context) (uint64, error) {
	l.keeper.repairs++
	// The bit keeps it apart from the nonces of barriers, which count from 1 on the same subject.
	nonce := 1<<63 | l.keeper.repairs
	came := make(chan uint64, 1)
	l.inReceiver(func() {
		l.receiver.nonce, l.receiver.repair = nonce, func(seq uint64) { came <- seq }
	})
	lost := l.requests.connection()
	if err := l.sendTick(nonce); err != nil {
		return 0, err
	}
	select {
	case seq := <-came:
		return seq, nil
	case <-time.After(requestTimeout):
		return 0, fmt.Errorf("a message to this node does not come back: is %s> republished, and may it be subscribed to?", l.store)
	case <-lost:
		return 0, errLost
	case <-ctx.Done():
		return 0, ctx.Err()
	case <-l.done:
		return 0, broker.ErrClosed
	}
}

// errAgain has the keeper catch up again at once. It is not a fault, so people are not told.
var errAgain = errors.New("something happened while the log caught up")

// repaired gives the Sink what was missed, and then what was held. The receiver calls it.
func (l *log) repaired(cause string, generation uint64, epoch string, at uint64, missed []broker.Entry, lost []string) error {
	r := &l.receiver
	if l.generation.Load() != generation {
		return fmt.Errorf("the connection was lost while the log caught up")
	}
	l.keeper.mu.Lock()
	again := l.keeper.again
	l.keeper.mu.Unlock()
	if again { // what was held may be gone, or the leader is another
		return errAgain
	}
	first := !r.began
	// First the epoch, because everything after it is of that: I7. Nothing was missed in a new one, and W begins there.
	if !r.began || r.epoch != epoch {
		r.began, r.epoch = true, epoch
		l.epochs.Add(1)
		l.sink.Epoch(epoch, at)
		missed, lost = nil, nil
		r.watermark = 0
	}
	// Before the entries, as the contract has it: the hub has to know of a hole before it delivers what is behind it.
	if len(lost) > 0 {
		l.sink.Lost(lost)
	}
	// max, because W never goes back within an epoch: I1.
	r.generation, r.watermark = generation, max(at, r.watermark)
	r.tick, r.tickBytes = at, r.repairBytes
	r.run.Missed(missed, r.watermark)
	l.markUp(cause, first, at)
	r.broken, r.repair = false, nil
	l.publisher.resume(generation) // before the Sink knows, which may publish at once
	l.sink.Repaired()
	l.logger().Info("the broker's log is up", zap.String("cause", cause), zap.Uint64("position", at), zap.Int("missed", len(missed)), zap.Int("lost", len(lost)))
	// The tick that they wait for may have been sent over the last connection.
	l.barriers.renew()
	l.marks.renew()
	// Last, as an ordinary message after the repair: what is at or before at is dropped by its position.
	held := r.held
	r.held, r.heldBytes = nil, 0
	l.replay(held)
	return nil
}

// markUp notes that the log has everything up to a position, for channels, status and the keeper.
func (l *log) markUp(cause string, first bool, at uint64) {
	l.mu.Lock()
	// Everything up to at was read, or told to be lost.
	for _, c := range l.channels {
		if c.open {
			c.last = at
		}
	}
	l.up, l.problem = true, ""
	l.heard = time.Now()
	l.lastTick = l.heard
	// The first time is no repair: it is counted from when the log was up.
	if !first {
		l.repairs[cause]++
	}
	l.mu.Unlock()
	l.keeper.mu.Lock()
	// Not earlier, because the keeper would publish ticks and audit a log that has not caught up.
	l.keeper.cause = ""
	l.keeper.mu.Unlock()
}

// replay delivers what was held. Something may be missing between again.
func (l *log) replay(held []*natsgo.Msg) {
	for _, m := range held {
		l.handle(m)
	}
	l.receiver.run.Flush()
}
