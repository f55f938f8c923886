package nats

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
	"github.com/caddy-broadcast/caddy-broadcast/internal/brokerlog"
	"github.com/caddy-broadcast/caddy-broadcast/internal/envelope"
	natsgo "github.com/nats-io/nats.go"
)

// receiver is what the goroutine that calls the Sink keeps. Fields after openings are its own.
type receiver struct {
	openings []*opening // guarded by log.mu
	all      *channel   // that of "", if it is open; guarded by log.mu

	// From Sink.Broken to Sink.Repaired: I5.
	broken     bool
	began      bool   // there was an Epoch
	generation uint64 // of the connection
	watermark  uint64
	tick       uint64 // the position of the last tick
	tickBytes  string // and its payload
	epoch      string

	held      []*natsgo.Msg // what came while it is broken
	heldBytes int64
	repair    func(seq uint64) // waits for the tick with the nonce below
	nonce     uint64
	// repairBytes is the payload of that tick.
	repairBytes string

	run brokerlog.Run
}

// move takes messages from the client library, which drops them when the channel is full. It never waits for the Sink.
func (l *log) move() {
	defer l.running.Done()
	for {
		select {
		case m := <-l.raw:
			l.queue.pushMessage(m)
		case <-l.done:
			return
		}
	}
}

// receive gives everything to the Sink, in order.
func (l *log) receive() {
	defer l.running.Done()
	r := &l.receiver
	var items []item
	for {
		var overflow, open bool
		items, overflow, open = l.queue.take(items[:0])
		// What was dropped came before what is left, so the log is broken before that is looked at.
		if overflow {
			l.fail("overflow")
		}
		for i := range items {
			// After Close nothing is given to the Sink, but what others wait for is done.
			if !open && items[i].do == nil {
				continue
			}
			if items[i].do != nil {
				// What is done may depend on the Sink having everything before it, as what was opened does.
				r.run.Flush()
				items[i].do()
			} else {
				l.handle(items[i].m)
			}
			// The slice is used again, and would keep the message until then.
			items[i] = item{}
		}
		// The messages above may all be of the connection before. What is missing between it and this one would only be
		// noticed with the next message, so it is looked for now.
		if generation := l.generation.Load(); generation != r.generation && !r.broken {
			l.fail("reconnect")
		}
		r.run.Flush()
		if !open {
			return
		}
	}
}

// handle takes a message, and holds it if the log cannot be sure that it has everything before it.
func (l *log) handle(m *natsgo.Msg) {
	r := &l.receiver
	// I5. The library's handlers of a disconnect run in a goroutine of their own, after the new connection delivers
	// (ach.push in nats.go 1.55), so they are too late for this.
	if generation := l.generation.Load(); generation != r.generation {
		l.fail("reconnect")
	}
	if r.broken {
		l.hold(m)
		return
	}
	if cause := l.deliver(m); cause != "" {
		l.fail(cause)
		l.hold(m)
	}
}

// stored is what the stream says of an entry when it republishes it.
type stored struct {
	seq, before uint64 // before is the entry before it on the subject, 0 if there is none
	time        int64
}

// stored reads the headers that the server adds (processJetStreamMsg in stream.go of nats-server 2.15.2). It is false if
// they are not there.
func (l *log) stored(m *natsgo.Msg) (s stored, ok bool) {
	if last(m.Header, "Nats-Stream") != l.config.Stream {
		return s, false // the subject is not protected: somebody may publish on it
	}
	var err error
	if s.seq, err = strconv.ParseUint(last(m.Header, "Nats-Sequence"), 10, 64); err != nil {
		return s, false
	}
	if text := last(m.Header, "Nats-Last-Sequence"); text != "" {
		if s.before, err = strconv.ParseUint(text, 10, 64); err != nil {
			return s, false
		}
	}
	at, err := time.Parse(time.RFC3339Nano, last(m.Header, "Nats-Time-Stamp"))
	s.time = at.UnixMilli()
	return s, err == nil
}

// last returns the last value of a header: the server appends its own to those of the publisher.
// Publishers may send a header of the same name, and must not choose a position.
func last(h natsgo.Header, name string) string {
	values := h[name]
	if len(values) == 0 {
		return ""
	}
	return values[len(values)-1]
}

// deliver takes a message in order. It returns a cause if it shows that something is missing.
func (l *log) deliver(m *natsgo.Msg) string {
	r := &l.receiver
	s, ok := l.stored(m)
	if !ok {
		l.countForeign()
		return ""
	}
	switch m.Subject[len(l.live):] {
	case tickName:
		return l.deliverTick(m, s)
	// Another node has seen that the stream lost something. This one delivers nothing more before it has settled on the
	// epoch too: I7.
	case epochName:
		if s.seq <= r.watermark {
			return ""
		}
		return "epoch"
	}
	l.mu.Lock()
	c, all := l.channels[m.Subject], r.all
	open := c != nil && c.open
	l.mu.Unlock()
	switch {
	case open && s.seq <= c.last, !open && s.seq <= r.watermark:
		return "" // it is there: by another subscription, or read
	// The server says which entry of the channel was before this one. If this node does not have it, then it was lost on
	// the way: I5. The watermark alone does not show that, because positions of other channels are missing all the time.
	// Greater and not another: last may be the position of a tick, and the entry before may be gone, for which the server
	// says 0.
	case open && (s.before > c.last || s.seq <= r.watermark), all != nil && s.seq > r.watermark+1:
		return "chain"
	}
	if c != nil {
		c.last = s.seq
	}
	// I1: what is held for a channel that is being opened, or that nobody wants any more, moves the watermark too. A
	// prototype that did not do so lost one message in 10^5, and nothing noticed it (scaleout.md, section 0).
	r.watermark = s.seq
	r.run.Advance(s.seq)
	if !open && all == nil || m.Subject[len(l.live)] == '_' {
		return "" // nobody wants it, or it is no channel
	}
	e := broker.Entry{Seq: s.seq, Time: s.time}
	// W has moved nevertheless, because the position is taken: I1.
	if !envelope.Decode(m.Data, &e) || !l.nameEntry(m, c, &e) {
		l.countForeign()
		return ""
	}
	r.run.Add(e)
	return ""
}

// nameEntry sets the channel's name. That of an open channel is shared, so that an entry needs no memory for it. With all
// channels open it has to be read from the subject.
func (l *log) nameEntry(m *natsgo.Msg, c *channel, e *broker.Entry) (ok bool) {
	if c != nil {
		e.Channel = c.name
		return true
	}
	e.Channel, ok = decodeChannel(m.Subject[len(l.live):])
	return ok
}

// deliverTick takes a tick, which moves W where nothing is published (I1), and shows that nothing was lost up to it.
func (l *log) deliverTick(m *natsgo.Msg, s stored) string {
	r := &l.receiver
	// A tick that came while the log caught up, and was held.
	if s.seq <= r.tick {
		return ""
	}
	l.mu.Lock()
	all := r.all
	l.mu.Unlock()
	// The tick before this one did not come, so others may not have come either. Or entries with later positions have
	// come before it, which the order of one leader excludes.
	if s.before > r.tick || s.seq <= r.watermark || all != nil && s.seq != r.watermark+1 {
		return "tick"
	}
	r.tick, r.tickBytes, r.watermark = s.seq, string(m.Data), s.seq
	r.run.Advance(s.seq)
	r.run.Flush()
	l.hear()
	if len(m.Data) == 24 && binary.LittleEndian.Uint64(m.Data) == l.number {
		l.barriers.settle(binary.LittleEndian.Uint64(m.Data[8:]), s.seq)
	}
	return ""
}

// hear notes that a tick has come, which shows that the whole path works: to the leader, and back to this node.
func (l *log) hear() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.heard = time.Now()
	l.lastTick = l.heard
}

// countForeign counts what no node has published. It is not an error, because anybody with access to the subjects can cause
// it, but people should see it.
func (l *log) countForeign() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.foreign++
}

// fail stops delivery until the keeper has caught up.
// The receiver calls it. What was gathered is delivered first: it came in order, so it is not in doubt.
func (l *log) fail(cause string) {
	r := &l.receiver
	// Noted here, or each message of the new connection would be another reason to fail.
	r.generation = l.generation.Load()
	if r.broken {
		l.broke(cause)
		return
	}
	r.run.Flush()
	r.broken = true
	l.mu.Lock()
	l.up = false
	l.mu.Unlock()
	l.setProblem("catching up after: " + cause)
	l.sink.Broken(fmt.Errorf("entries may be missing: %s", cause))
	l.broke(cause)
}

// hold keeps a message until the log has caught up.
// The tick that ends the catching up comes here as well, because the log is broken until then.
func (l *log) hold(m *natsgo.Msg) {
	r := &l.receiver
	if m.Subject == l.live+tickName && r.repair != nil && len(m.Data) == 24 &&
		binary.LittleEndian.Uint64(m.Data) == l.number && binary.LittleEndian.Uint64(m.Data[8:]) == r.nonce {
		if s, ok := l.stored(m); ok {
			done := r.repair
			r.repair, r.repairBytes = nil, string(m.Data)
			done(s.seq)
		}
	}
	r.heldBytes += size(m)
	// Catching up begins again then, and reads what was held from the stream.
	if r.heldBytes > maxQueue {
		r.held, r.heldBytes = nil, 0
		l.broke("overflow")
		return
	}
	r.held = append(r.held, m)
}
