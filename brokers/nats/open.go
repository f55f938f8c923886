package nats

import (
	"strings"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
	natsgo "github.com/nats-io/nats.go"
)

// channel is one that is open or being opened.
type channel struct {
	name, subject string
	sub           *natsgo.Subscription

	// Only the receiver touches these. The node has everything up to last. What comes before open is history.
	last uint64
	open bool
}

// opening is a call of Open that is not done.
type opening struct {
	channels []*channel
	opened   func(uint64, error)
	over     bool // guarded by log.mu
}

// liveSubject returns where a channel's entries come. A channel is one token, so * stands for all of them.
func (l *log) liveSubject(name string) string {
	if name == "" {
		return l.live + "*"
	}
	return l.live + encodeChannel(name)
}

// Open implements broker.Log. Of a channel that is open already, or is being opened, it only waits for a tick.
func (l *log) Open(names []string, opened func(uint64, error)) {
	o := &opening{opened: opened}
	l.mu.Lock()
	if l.closed.Load() {
		l.mu.Unlock()
		opened(0, broker.ErrClosed)
		return
	}
	for _, name := range names {
		subject := l.liveSubject(name)
		c := l.channels[subject]
		if c == nil {
			// A copy, because the name may be a part of a request, which it would keep in memory.
			c = &channel{name: strings.Clone(name), subject: subject}
			var err error
			// With the lock held, so that no Release comes between the subscription and the map.
			if c.sub, err = l.conn.ChanSubscribe(subject, l.raw); err != nil {
				l.mu.Unlock()
				// The library refuses a subscription only after Close.
				l.settleOpening(o, 0, broker.ErrClosed)
				return
			}
			l.channels[subject] = c
		}
		o.channels = append(o.channels, c)
	}
	l.receiver.openings = append(l.receiver.openings, o)
	l.mu.Unlock()
	// The subscription and the tick go down one connection, and the interest and what is published down one route, so whatever
	// is stored after the tick comes.
	l.barriers.join(waiter{patient: true, done: func(seq uint64, err error) { l.settleOpening(o, seq, err) }})
}

// settleOpening is called by the receiver, or when the log is closed.
func (l *log) settleOpening(o *opening, seq uint64, err error) {
	if err != nil {
		// By the queue, because opened and the calls of the Sink are in one order. After Close there is no queue any more, and
		// nothing that this could be in disorder with: Close waits for the receiver, which does what was pushed before.
		if !l.queue.push(func() { l.endOpening(o, 0, err) }) {
			l.endOpening(o, 0, err)
		}
		return
	}
	l.endOpening(o, seq, nil)
}

// endOpening calls opened, unless it has been called: the tick, Release and Close may each be first.
func (l *log) endOpening(o *opening, seq uint64, err error) {
	l.mu.Lock()
	over := o.over
	o.over = true
	for i, other := range l.receiver.openings {
		if other == o {
			l.receiver.openings = append(l.receiver.openings[:i], l.receiver.openings[i+1:]...)
			break
		}
	}
	if !over && err == nil {
		for _, c := range o.channels {
			// max: a channel may be open already, by an earlier call, and have entries after this tick.
			c.open, c.last = true, max(c.last, seq)
			if c.name == "" {
				l.receiver.all = c
			}
		}
	}
	l.mu.Unlock()
	if !over {
		o.opened(seq, err)
	}
}

// Release implements broker.Log. What is on its way still comes, and only moves W: I1.
func (l *log) Release(names []string) {
	var ended []*opening
	l.mu.Lock()
	for _, name := range names {
		subject := l.liveSubject(name)
		c := l.channels[subject]
		if c == nil {
			continue
		}
		// First out of the map, so that an Open that comes now subscribes anew and waits for a tick of its own.
		delete(l.channels, subject)
		// Its error is that the connection is closed, and with it the subscription.
		c.sub.Unsubscribe()
		if l.receiver.all == c {
			l.receiver.all = nil
		}
		for _, o := range l.receiver.openings {
			for _, other := range o.channels {
				if other == c {
					ended = append(ended, o)
					break
				}
			}
		}
	}
	l.mu.Unlock()
	for _, o := range ended {
		l.queue.push(func() { l.endOpening(o, 0, broker.ErrClosed) })
	}
}
