package nats

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
	natsgo "github.com/nats-io/nats.go"
)

// tickInterval is how long a node waits for somebody's tick before it publishes one, ± 50 %.
// So there are one to three a second, of all nodes together. W of a quiet node is behind by no more than that, and a lost
// message shows as soon.
const tickInterval = 500 * time.Millisecond

// waiter is somebody who waits for a tick that is published after the call.
type waiter struct {
	done     func(seq uint64, err error)
	patient  bool // waits for a broker that cannot be reached
	deadline time.Time
}

// joint lets waiters share ticks. One is under way at a time, and who comes meanwhile waits for the next.
// Those in flying wait for the tick that was sent. It is no barrier for those in waiting, who came later: an entry may have
// been stored between the two.
type joint struct {
	send func(nonce uint64) error

	mu      sync.Mutex
	nonce   uint64
	flying  []waiter
	waiting []waiter
	sent    time.Time
	closed  bool
}

// join adds a waiter. done is called without the lock, here as elsewhere, since it may join again.
func (j *joint) join(w waiter) {
	j.mu.Lock()
	if j.closed {
		j.mu.Unlock()
		w.done(0, broker.ErrClosed)
		return
	}
	j.waiting = append(j.waiting, w)
	if len(j.flying) == 0 {
		j.launchLocked()
	}
	j.mu.Unlock()
}

// launchLocked publishes a tick for all who wait. If that fails, the keeper tries again.
func (j *joint) launchLocked() {
	if len(j.waiting) == 0 {
		return
	}
	j.flying = append(j.flying, j.waiting...)
	j.waiting = nil
	j.nonce++
	j.sent = time.Now()
	// Its error is not looked at: if the tick was not sent then none comes, and tend sends another one.
	j.send(j.nonce)
}

// busy reports whether somebody waits.
func (j *joint) busy() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return len(j.flying)+len(j.waiting) > 0
}

// settle is told of a tick that came.
// The receiver calls it for barriers, and a goroutine of the library for marks. The next tick is sent before anybody is
// told, so that those who wait for it do not wait for callbacks too.
func (j *joint) settle(nonce, seq uint64) {
	j.mu.Lock()
	// An older one: it may have been published before the last of those who wait came, and would not be a barrier for
	// them.
	if nonce != j.nonce {
		j.mu.Unlock()
		return
	}
	done := j.flying
	j.flying = nil
	j.launchLocked()
	j.mu.Unlock()
	for _, w := range done {
		w.done(seq, nil)
	}
}

// renew publishes another tick in place of one that may never come: it was sent over another connection.
// It is called when the log has caught up, and by tend.
func (j *joint) renew() {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.flying) > 0 {
		j.waiting = append(j.flying, j.waiting...)
		j.flying = nil
	}
	j.launchLocked()
}

// tend fails who has waited too long, and renews a tick that does not come.
func (j *joint) tend(now time.Time) {
	j.mu.Lock()
	// A tick takes less than a millisecond. One that is not there after a second was lost.
	late := len(j.flying)+len(j.waiting) > 0 && now.Sub(j.sent) > time.Second
	var failed []waiter
	keep := func(ws []waiter) (kept []waiter) {
		for _, w := range ws {
			if !w.patient && now.After(w.deadline) {
				failed = append(failed, w)
			} else {
				kept = append(kept, w)
			}
		}
		return kept
	}
	j.flying, j.waiting = keep(j.flying), keep(j.waiting)
	j.mu.Unlock()
	for _, w := range failed {
		w.done(0, broker.ErrDown)
	}
	if late {
		j.renew()
	}
}

// fail ends those who wait, all of them if the log is closed.
// Openings are patient: the contract of Open says that opened is not called while the broker cannot be reached.
func (j *joint) fail(err error, all bool) {
	j.mu.Lock()
	var failed []waiter
	split := func(ws []waiter) (kept []waiter) {
		for _, w := range ws {
			if all || !w.patient {
				failed = append(failed, w)
			} else {
				kept = append(kept, w)
			}
		}
		return kept
	}
	j.flying, j.waiting = split(j.flying), split(j.waiting)
	j.closed = j.closed || all
	j.mu.Unlock()
	for _, w := range failed {
		w.done(0, err)
	}
}

// tickBytes is the payload of a tick: who waits for it, which only that node understands, and random bytes: no two ticks are
// the same, so that one at a known position shows whether the stream is the same as before.
func (l *log) tickBytes(nonce uint64) []byte {
	b := binary.LittleEndian.AppendUint64(nil, l.number)
	b = binary.LittleEndian.AppendUint64(b, nonce)
	return binary.LittleEndian.AppendUint64(b, rand.Uint64())
}

// sendTick publishes a tick. It asks for no ack: that it comes back as an entry does is the answer.
func (l *log) sendTick(nonce uint64) error {
	return l.conn.Publish(l.store+tickName, l.tickBytes(nonce))
}

// sendMark publishes a tick that is awaited by its ack, and so also while the log is broken and holds what comes. Its nonce
// 0 is that of no barrier.
func (l *log) sendMark(nonce uint64) error {
	return l.conn.PublishRequest(l.store+tickName, strings.TrimSuffix(l.requests.prefix, "r.")+"m."+strconv.FormatUint(nonce, 36), l.tickBytes(0))
}

// handleMark takes the ack of a mark.
func (l *log) handleMark(m *natsgo.Msg) {
	nonce, err := strconv.ParseUint(m.Subject[strings.LastIndexByte(m.Subject, '.')+1:], 36, 64)
	var ack ack
	if err == nil && json.Unmarshal(m.Data, &ack) == nil && ack.Error == nil && ack.Seq > 0 {
		l.marks.settle(nonce, ack.Seq)
	}
}

// Barrier implements broker.Log. The tick is stored after all that was stored before the call, and comes after it, so W has
// reached it then: I3.
func (l *log) Barrier(done func(uint64, error)) {
	if l.closed.Load() {
		done(0, broker.ErrClosed)
		return
	}
	if !l.conn.IsConnected() {
		done(0, fmt.Errorf("%w", broker.ErrDown))
		return
	}
	l.barriers.join(waiter{done: done, deadline: time.Now().Add(l.config.PublishTimeout)})
}
