package brokertest

import (
	"strings"
	"sync"
)

// mailbox is the messages that a node got from others, through broker.Options.Message. It has a lock of its own, since they may
// come at the same time as calls of the Sink.
type mailbox struct {
	mu      sync.Mutex
	changed chan struct{} // closed at each message, and replaced
	got     []mail
	closed  bool
	late    int // messages that came after Close had returned
}

type mail struct {
	from    uint64
	message string
}

func newMailbox() *mailbox { return &mailbox{changed: make(chan struct{})} }

// receive is an Options.Message.
func (b *mailbox) receive(from uint64, message []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		b.late++
	}
	b.got = append(b.got, mail{from, string(message)})
	// What it got is its own, so nobody may see what it does with it.
	clear(message)
	close(b.changed)
	b.changed = make(chan struct{})
}

func (b *mailbox) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
}

// next returns a channel that is closed when another message comes.
func (b *mailbox) next() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.changed
}

// from counts the messages of a node that begin with what.
func (b *mailbox) from(node uint64, what string) (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, m := range b.got {
		if m.from == node && strings.HasPrefix(m.message, what) {
			n++
		}
	}
	return n
}

// contents returns the messages that begin with what, and how often each came.
func (b *mailbox) contents(what string) map[string]int {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := make(map[string]int)
	for _, m := range b.got {
		if strings.HasPrefix(m.message, what) {
			all[m.message]++
		}
	}
	return all
}

// lateOnes returns how many messages came after Close.
func (b *mailbox) lateOnes() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.late
}
