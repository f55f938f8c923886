package brokertest

import (
	"fmt"
	"sync"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
)

// told is the epoch that a Sink was told last. What the log answers is of that one. It is apart from memoryLog.epoch, which
// changes when the message arrives at the node. The Sink is called later, by another goroutine.
type told struct {
	mu      sync.Mutex // held while Sink.Epoch is called, and while a publisher is given places
	epoch   epoch
	changed chan struct{} // closed when it changes, and replaced
}

// errEpoch is the error of a read that was answered in another epoch than it was asked in. It wraps ErrDown, because the read
// may be tried again.
var errEpoch = fmt.Errorf("the epoch has changed: %w", broker.ErrDown)

func (t *told) now() epoch {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.epoch
}

// tell calls what tells the Sink of an epoch.
func (t *told) tell(e epoch, call func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	// Under the lock: who asks meanwhile waits until the Sink has been told, because an answer of the new epoch must not
	// come before it.
	call()
	t.epoch = e
	close(t.changed)
	t.changed = make(chan struct{})
}

// during waits until the Sink was told of an epoch, and calls f while it is not told of another one. over says that it was.
// It is called by the goroutine of the acks, which may wait. The epoch comes through the goroutine of the sink, which does
// not wait for this one.
func (t *told) during(e epoch, f func(over bool)) {
	for {
		t.mu.Lock()
		if t.epoch.number >= e.number {
			defer t.mu.Unlock()
			f(t.epoch != e)
			return
		}
		changed := t.changed
		t.mu.Unlock()
		<-changed
	}
}
