package nats

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
	natsgo "github.com/nats-io/nats.go"
	"go.uber.org/zap"
)

// keeper is what the goroutine that catches up keeps.
type keeper struct {
	signal chan struct{}

	mu     sync.Mutex
	cause  string // why the log has to catch up, "" if it does not
	retain bool   // the retention changed
	again  bool   // something came up while it was catching up

	repairs uint64 // counts, for the nonces of ticks
}

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

// broke has the keeper catch up.
func (l *log) broke(cause string) {
	l.keeper.mu.Lock()
	if l.keeper.cause == "" {
		l.keeper.cause = cause
	}
	l.keeper.mu.Unlock()
	l.keeper.wake(&l.keeper.again)
}

// connected and disconnected are called by the client library, later than the connection is used.
func (l *log) connected() { l.broke("reconnect") }

func (l *log) disconnected(err error) {
	if l.closed.Load() {
		return
	}
	text := "not connected"
	if err != nil {
		text = fmt.Sprint("not connected: ", err)
	}
	l.barriers.fail(broker.ErrDown, false)
	l.marks.fail(broker.ErrDown, false)
	// The receiver stops when the next connection is dialled. It has to be now: nothing comes until then.
	l.queue.push(func() { l.fail("reconnect"); l.setProblem(text) })
}

// keep connects, ticks, and catches up when something is missing.
func (l *log) keep() {
	defer l.running.Done()
	clock := time.NewTicker(50 * time.Millisecond)
	defer clock.Stop()
	tickAt, auditAt := time.Now(), l.nextAudit()
	var retryAt time.Time
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
		if !l.conn.IsConnected() {
			continue
		}
		l.keeper.mu.Lock()
		cause, retain := l.keeper.cause, l.keeper.retain
		l.keeper.mu.Unlock()
		switch {
		case cause != "":
			if now.Before(retryAt) {
				continue
			}
			if err := l.recover(cause); err != nil {
				l.setProblem(err.Error())
				l.logger().Warn("cannot catch up with the broker", zap.String("cause", cause), zap.Error(err))
				retryAt = now.Add(100*time.Millisecond + rand.N(200*time.Millisecond))
			}
			tickAt, auditAt = time.Now(), l.nextAudit()
		case retain:
			l.applyRetention()
		case now.After(auditAt):
			l.audit()
			auditAt = l.nextAudit()
		case now.After(tickAt):
			tickAt = l.tickIfSilent(now)
		}
	}
}

func (l *log) nextAudit() time.Time { return time.Now().Add(45*time.Second + rand.N(30*time.Second)) }

// tickIfSilent publishes a tick if no node has, and returns when to look again. If none comes for seconds although this node
// publishes some, then the path is broken.
func (l *log) tickIfSilent(now time.Time) time.Time {
	l.mu.Lock()
	heard := l.lastTick
	l.mu.Unlock()
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

func (l *log) applyRetention() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	l.keeper.mu.Lock()
	l.keeper.retain = false
	l.keeper.mu.Unlock()
	if _, err := l.ensure(ctx); err != nil {
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
	l.keeper.mu.Lock()
	l.keeper.again = false
	l.keeper.mu.Unlock()
	if !l.inReceiver(func() { l.fail(cause) }) {
		return nil
	}
	generation := l.generation.Load()
	info, err := l.ensure(ctx)
	if err != nil {
		return err
	}
	epoch, err := l.settleEpoch(ctx, info)
	if err != nil {
		return err
	}
	at, err := l.repairTick(ctx)
	if err != nil {
		return err
	}
	missed, lost, err := l.missed(ctx, epoch, at)
	if err != nil {
		return err
	}
	l.inReceiver(func() { err = l.repaired(cause, generation, epoch, at, missed, lost) })
	return err
}

// repairTick publishes a tick, and waits until it comes the way that entries come.
func (l *log) repairTick(ctx context.Context) (uint64, error) {
	l.keeper.repairs++
	nonce := 1<<63 | l.keeper.repairs
	came := make(chan uint64, 1)
	l.inReceiver(func() {
		l.receiver.nonce, l.receiver.repair = nonce, func(seq uint64) { came <- seq }
	})
	if err := l.sendTick(nonce); err != nil {
		return 0, err
	}
	select {
	case seq := <-came:
		return seq, nil
	case <-time.After(requestTimeout):
		return 0, fmt.Errorf("a message to this node does not come back: is %s> republished, and may it be subscribed to?", l.store)
	case <-ctx.Done():
		return 0, ctx.Err()
	case <-l.done:
		return 0, broker.ErrClosed
	}
}

// position is how far a node has a channel.
type position struct {
	c    *channel
	last uint64
}

// missed reads what open channels have between what this node has and a position.
func (l *log) missed(ctx context.Context, epoch string, at uint64) (missed []broker.Entry, lost []string, err error) {
	var open []position
	var all *channel
	var watermark uint64
	same := false
	l.inReceiver(func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		r := &l.receiver
		same, all, watermark = r.began && r.epoch == epoch, r.all, r.watermark
		for _, c := range l.channels {
			if c.open && c.name != "" {
				open = append(open, position{c, c.last})
			}
		}
	})
	if !same {
		return nil, nil, nil
	}
	if all != nil {
		return l.missedOfAll(ctx, watermark, at)
	}
	room := maxQueue
	for group := range slices.Chunk(open, groupSize) {
		if err := l.missedOf(ctx, group, at, &missed, &lost, &room); err != nil {
			return nil, nil, err
		}
	}
	slices.SortFunc(missed, func(a, b broker.Entry) int { return int(int64(a.Seq) - int64(b.Seq)) })
	return missed, lost, nil
}

// groupSize is how many channels are asked for at once. The server answers for 1024 at most, and takes 1 MiB in a request.
const groupSize = 250

func (l *log) missedOf(ctx context.Context, group []position, at uint64, missed *[]broker.Entry, lost *[]string, room *int) error {
	from := group[0].last
	subjects := make([]string, len(group))
	bySubject := make(map[string]position, len(group))
	for i, p := range group {
		from = min(from, p.last)
		subjects[i] = l.store + encodeChannel(p.c.name)
		bySubject[subjects[i]] = p
	}
	fs, err := l.lasts(ctx, subjects, from+1, at)
	if err != nil {
		return err
	}
	for _, f := range fs {
		p := bySubject[f.subj]
		if f.seq <= p.last {
			continue
		}
		if *room < 0 {
			*lost = append(*lost, p.c.name)
			continue
		}
		err := l.walk(ctx, f.subj, p.last, min(f.seq, max(at, f.seq)), func(f found) bool {
			*room -= len(f.data) + 256
			if e, ok := l.entryOf(p.c.name, f); ok && f.seq <= at {
				*missed = append(*missed, e)
			}
			return f.seq < at && *room > 0
		})
		if err != nil {
			return err
		}
		complete, err := l.complete(ctx, f.subj, p.last)
		if err != nil {
			return err
		}
		if !complete || *room < 0 {
			*lost = append(*lost, p.c.name)
		}
	}
	return nil
}

// missedOfAll reads everything, for a node that has all channels open.
func (l *log) missedOfAll(ctx context.Context, after, at uint64) (missed []broker.Entry, lost []string, err error) {
	err = l.walk(ctx, l.store+">", after, at, func(f found) bool {
		if name, ok := decodeChannel(f.subj[len(l.store):]); ok {
			if e, ok := l.entryOf(name, f); ok {
				missed = append(missed, e)
			}
		}
		return true
	})
	if err != nil {
		return nil, nil, err
	}
	info, err := l.info(ctx, "")
	if err == nil && info.State.FirstSeq > after+1 {
		lost = []string{""}
	}
	return missed, lost, err
}

// repaired gives the Sink what was missed, and then what was held. The receiver calls it.
func (l *log) repaired(cause string, generation uint64, epoch string, at uint64, missed []broker.Entry, lost []string) error {
	r := &l.receiver
	if l.generation.Load() != generation {
		return fmt.Errorf("the connection was lost while the log caught up")
	}
	first := !r.began
	if !r.began || r.epoch != epoch {
		r.began, r.epoch = true, epoch
		l.sink.Epoch(epoch, at)
		missed, lost = nil, nil
		r.watermark = 0
	}
	if len(lost) > 0 {
		l.sink.Lost(lost)
	}
	for run := range slices.Chunk(missed, maxRun) {
		l.sink.Entries(slices.Clone(run))
	}
	r.generation, r.watermark, r.advance = generation, max(at, r.watermark), 0
	r.tick, r.tickBytes = at, r.repairBytes
	l.sink.Advance(r.watermark)
	l.mu.Lock()
	for _, c := range l.channels {
		if c.open {
			c.last = at
		}
	}
	l.up, l.problem = true, ""
	l.heard = time.Now()
	l.lastTick = l.heard
	if !first {
		l.repairs[cause]++
	}
	l.mu.Unlock()
	l.keeper.mu.Lock()
	l.keeper.cause = ""
	l.keeper.mu.Unlock()
	r.broken, r.repair = false, nil
	l.sink.Repaired()
	l.logger().Info("the broker's log is up", zap.String("cause", cause), zap.Uint64("position", at), zap.Int("missed", len(missed)), zap.Int("lost", len(lost)))
	l.barriers.renew()
	l.marks.renew()
	l.publisher.resume(generation)
	held := r.held
	r.held, r.heldBytes = nil, 0
	l.replay(held)
	return nil
}

// replay delivers what was held. Something may be missing between again.
func (l *log) replay(held []*natsgo.Msg) {
	for _, m := range held {
		l.handle(m)
	}
	l.flush()
}

// audit looks whether everything came, without a reason to doubt it: the leader that dies between storing an entry and
// republishing it loses it for those who are connected, and if nothing more is published on the channel then nothing shows it.
func (l *log) audit() {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	came := make(chan uint64, 1)
	l.Barrier(func(seq uint64, err error) { came <- seq })
	at := <-came
	if at == 0 {
		return
	}
	var open []position
	l.inReceiver(func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		for _, c := range l.channels {
			if c.open && c.name != "" {
				open = append(open, position{c, c.last})
			}
		}
	})
	for group := range slices.Chunk(open, groupSize) {
		subjects, lastOf, from := make([]string, len(group)), map[string]uint64{}, group[0].last
		for i, p := range group {
			subjects[i] = l.store + encodeChannel(p.c.name)
			lastOf[subjects[i]], from = p.last, min(from, p.last)
		}
		fs, err := l.lasts(ctx, subjects, from+1, at)
		if err != nil {
			return
		}
		for _, f := range fs {
			if f.seq <= at && f.seq > lastOf[f.subj] {
				l.queue.push(func() { l.fail("audit") })
				return
			}
		}
	}
}
