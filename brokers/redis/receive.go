package redis

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
	"github.com/caddy-broadcast/caddy-broadcast/internal/brokerlog"
	"github.com/caddy-broadcast/caddy-broadcast/internal/envelope"
	"github.com/redis/rueidis"
)

// receiver is what the goroutine that calls the Sink keeps.
type receiver struct {
	session   *session // whose messages count
	broken    bool     // from Sink.Broken to Sink.Repaired: rule 5 of package broker
	began     bool     // there was an Epoch
	epoch     string
	watermark uint64

	held      []item // what came while it is broken
	heldBytes int64
	repair    string           // the nonce of the tick that is waited for
	repaired  func(seq uint64) // is called then

	run brokerlog.Run
}

var errOverflow = errors.New("more came than the hub could take")

// message takes what the server sends. The client library calls it in the goroutine that reads the connection, so it must not
// wait, and the order is that of the server.
func (s *session) message(m rueidis.PubSubMessage) {
	l := s.l
	switch m.Channel {
	case l.peer, l.everybody:
		l.receiveMessage(m.Message)
		return
	case l.own:
		if nonce, err := strconv.ParseUint(m.Message[strings.LastIndexByte(m.Message, ' ')+1:], 10, 64); err == nil {
			s.ticked.Store(nonce)
			select {
			case s.heard <- struct{}{}:
			default:
			}
		}
	}
	// After the first that has no room nothing more is taken, though there may be room again: it would come after a hole.
	if !s.full && !l.queue.pushMessage(item{s: s, channel: m.Channel, text: m.Message}) {
		s.full = true
		s.fail("overflow", errOverflow)
	}
}

// receive gives everything to the Sink, in order.
func (l *log) receive() {
	defer l.running.Done()
	var items []item
	for {
		var open bool
		items, open = l.queue.take(items[:0])
		for i := range items {
			switch {
			case items[i].do != nil:
				// What is done may depend on the Sink having everything before it, as what was opened does.
				if open {
					l.receiver.run.Flush()
				}
				items[i].do()
			case open: // after Close nothing is given to the Sink, but what others wait for is done
				l.handle(items[i])
			}
			// The slice is used again, and would keep the message until then.
			items[i] = item{}
		}
		if !open {
			l.endOpenings()
			return
		}
		l.receiver.run.Flush()
	}
}

// handle takes a message, and holds it if the log cannot be sure that it has everything before it.
func (l *log) handle(it item) {
	r := &l.receiver
	if it.s != r.session {
		return // of a connection that is lost: what it had is read
	}
	if !r.broken {
		l.deliver(it)
		return
	}
	if it.channel == l.own && r.repaired != nil {
		if m, ok := parse(it.text); ok && m.epoch == it.s.epoch && m.rest == r.repair {
			done := r.repaired
			r.repaired = nil
			done(m.seq)
		}
	}
	if r.heldBytes += it.size(); r.heldBytes > maxQueue {
		it.s.fail("overflow", errOverflow)
		return
	}
	r.held = append(r.held, it)
}

// deliver takes a message in order.
func (l *log) deliver(it item) {
	r := &l.receiver
	m, ok := parse(it.text)
	switch {
	case !ok:
		l.countForeign()
		return
	case m.epoch != it.s.epoch:
		// Another node has begun an epoch on this server: it was flushed. The session ends, and nothing more of it counts.
		it.s.fail("epoch", errFence)
		r.session = nil
		return
	case it.channel == l.own:
		l.deliverTick(it.s, m)
		return
	// It comes twice if both "" and the channel are subscribed to.
	case m.seq <= r.watermark:
		return
	}
	// What is of a channel that is being opened, or that nobody wants any more, moves W too: rule 1.
	r.watermark = m.seq
	r.run.Advance(m.seq)
	e := broker.Entry{Seq: m.seq, Time: m.time}
	if e.Channel, ok = l.wanted(it.channel); !ok {
		return
	}
	if !envelope.Decode([]byte(m.rest), &e) {
		l.countForeign()
		return
	}
	r.run.Add(e)
}

// wanted returns the name of a channel of the server's, if it is open. That of an open channel is shared, so that an entry needs
// no memory for it.
func (l *log) wanted(live string) (string, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c := l.channels[live]; c != nil && c.open {
		return c.name, true
	}
	if l.all == nil || !l.all.open {
		return "", false
	}
	name, ok := strings.CutPrefix(live, l.live)
	return name, ok && len(name) > 0 && len(name) <= 255
}

// deliverTick takes a tick, which moves W where nothing is published: rule 1.
func (l *log) deliverTick(s *session, m stored) {
	r := &l.receiver
	if m.seq < r.watermark {
		// The server has gone back, without a restart or with a promise that it did not keep: rule 7.
		l.note(r.watermark)
		s.fail("epoch", errFence)
		r.session = nil
		return
	}
	if m.seq > r.watermark {
		r.watermark = m.seq
		r.run.Advance(m.seq)
	}
	r.run.Flush()
	l.note(r.watermark)
	l.setClock(m.time)
	if nonce, err := strconv.ParseUint(m.rest, 10, 64); err == nil {
		l.settle(s, nonce, r.watermark)
	}
}

// note records, for other goroutines, that everything works, and up to which position.
func (l *log) note(at uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.heard, l.certain = time.Now(), at
}

// fail stops delivery until the keeper has caught up. What was gathered is delivered first: it came in order, so it is not in
// doubt.
func (l *log) fail(cause string) {
	r := &l.receiver
	r.session, r.held, r.heldBytes, r.repaired = nil, nil, 0, nil
	if r.broken {
		return
	}
	r.run.Flush()
	r.broken = true
	l.mu.Lock()
	l.certain = max(l.certain, r.watermark)
	l.mu.Unlock()
	l.sink.Broken(fmt.Errorf("entries may be missing: %s", cause))
}

// inReceiver does something between two messages, and waits for it. It is false if the log is closed.
func (l *log) inReceiver(do func()) bool {
	done := make(chan struct{})
	if !l.queue.push(func() {
		defer close(done)
		if !l.closed.Load() {
			do()
		}
	}) {
		return false
	}
	<-done
	return !l.closed.Load()
}
