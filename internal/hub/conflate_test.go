package hub

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
)

// TestConflateModel runs random publishes, with and without conflate keys, to clients of every kind and speed, that join, leave,
// resume and close, against the guarantee in docs/delivery.md.
func TestConflateModel(t *testing.T) {
	seed := rand.Uint64()
	skipped := 0
	for round := range 200 {
		if !t.Run(fmt.Sprint("seed ", seed, ",", round), func(t *testing.T) {
			skipped += runConflateModel(t, rand.New(rand.NewPCG(seed, uint64(round))))
		}) {
			return
		}
	}
	if skipped < 200 {
		t.Errorf("only %d messages were skipped", skipped) // of some ten thousand that may be
	}
}

func runConflateModel(t *testing.T, r *rand.Rand) (skipped int) {
	m := &conflateModel{t: t, r: r, h: New(Config{History: 1 + r.IntN(100)})}
	defer closeHub(m.h)
	for range 400 {
		switch k := r.IntN(20); {
		case k < 2:
			m.connect(nil)
		case k < 3 && len(m.open) > 0:
			m.closeOne()
		case k < 4 && len(m.open) > 0:
			m.resumeOne()
		case k < 6 && len(m.open) > 0:
			m.joinOrLeave()
		case k < 7 && len(m.open) > 0:
			m.open[r.IntN(len(m.open))].conn.Send(seqs{}.Append(nil, []*Message{{Seq: conflateReply | m.h.seq}}))
		case k < 9 && len(m.open) > 0:
			e := m.open[r.IntN(len(m.open))]
			e.open(8 * r.IntN(20)) // whole messages, mostly fewer than wait
		default:
			m.publish()
		}
	}
	m.check()
	for _, e := range m.all {
		skipped += len(e.due) - len(e.received())
	}
	return skipped
}

// conflateModel is a hub, and what was published.
type conflateModel struct {
	t    *testing.T
	r    *rand.Rand
	h    *Hub
	open []*conflating
	log  []*Message // by position, from 1
	all  []*conflating
}

// conflating is a connection, and what it is due.
type conflating struct {
	*client
	channels []string
	due      []*Message
	skips    bool   // it may miss what was replaced; else it gets all
	history  uint64 // up to here it was sent what history had, without what was replaced by then
	closed   bool
	waits    bool // it has DeliverEvery
}

func (m *conflateModel) connect(after *conflating) {
	r := m.r
	e := &conflating{client: newClient(), skips: r.IntN(4) > 0}
	o := options()
	o.MaxBacklog = 1 << 20
	if e.skips { // one of these, or both
		o.Conflate = r.IntN(2) == 0
		if !o.Conflate || r.IntN(2) == 0 {
			e.waits = true
			o.DeliverEvery = time.Duration(1+r.IntN(3)) * time.Millisecond
		}
	}
	o.Format = seqs{name: modelChannels[r.IntN(2)]}
	e.blocks = r.IntN(2) == 0
	e.window = 8 * r.IntN(20)
	s := Subscriber{}
	if after == nil {
		for _, i := range r.Perm(3)[:1+r.IntN(3)] {
			s.Channels = append(s.Channels, modelChannels[i])
		}
	} else {
		s.Channels = after.channels
		got := after.received()
		from := m.h.seq // it does not change: nobody else publishes
		if len(got) > 0 {
			from = got[len(got)-1]
		} else if len(after.due) > 0 {
			from = after.due[0].Seq - 1
		}
		s.LastID = FormatID(m.h.epoch, from)
		defer m.resumed(e, from)
	}
	e.channels = slices.Clone(s.Channels)
	conn, w, err := m.h.Connect(s, o)
	if err != nil {
		m.t.Fatal(err)
	}
	e.conn = conn
	e.channels = slices.DeleteFunc(e.channels, func(name string) bool { return slices.Contains(w.Gaps, name) })
	lost := len(e.channels) < len(s.Channels)
	conn.Start(e, nil)
	m.open = append(m.open, e)
	m.all = append(m.all, e)
	if lost { // of these channels nothing is resumed; to keep the model simple it leaves them
		for _, name := range w.Gaps {
			if err := conn.Leave(name, nil); err != nil {
				m.t.Fatal(err)
			}
		}
	}
}

// resumed makes what was published since a position due.
func (m *conflateModel) resumed(e *conflating, from uint64) {
	for _, message := range m.log[from:] {
		if slices.Contains(e.channels, message.Channel) {
			e.due = append(e.due, message)
		}
	}
	e.history = m.h.seq
}

// conflateReply marks a reply, whose other bits are the position at which it was sent.
const conflateReply = 1 << 40

// received returns the positions that a client has, without replies and the close.
func (e *conflating) received() []uint64 {
	got, _ := e.wait(0)
	return slices.DeleteFunc(got, func(v uint64) bool { return v&conflateReply != 0 })
}

// checkReplies: a reply comes after what was published before it, unless that waits for the next delivery, and before what was
// published after it.
func (e *conflating) checkReplies(t *testing.T) {
	got, _ := e.wait(0)
	for i, v := range got {
		if v&conflateReply == 0 {
			continue
		}
		for j, m := range got {
			if m&conflateReply == 0 && (j < i && m > v&^conflateReply || j > i && m <= v&^conflateReply && !e.waits) {
				t.Fatalf("the reply at %d is not in order: %v", v&^conflateReply, got)
			}
		}
	}
}

func (m *conflateModel) closeOne() *conflating {
	i := m.r.IntN(len(m.open))
	e := m.open[i]
	m.open = slices.Delete(m.open, i, i+1)
	e.conn.Close(ReasonClient, "")
	e.closed = true
	return e
}

// resumeOne cuts a client off, whatever waits for it, and has it come back with its last position.
func (m *conflateModel) resumeOne() {
	i := m.r.IntN(len(m.open))
	e := m.open[i]
	m.open = slices.Delete(m.open, i, i+1)
	m.all = slices.DeleteFunc(m.all, func(x *conflating) bool { return x == e })
	e.conn.Done()
	waitFor(m.t, e.conn.Gone)
	e.checkOrder(m.t)
	m.connect(e)
}

func (m *conflateModel) joinOrLeave() {
	e := m.open[m.r.IntN(len(m.open))]
	name := modelChannels[m.r.IntN(3)]
	if i := slices.Index(e.channels, name); i >= 0 {
		e.channels = slices.Delete(e.channels, i, i+1)
		if err := e.conn.Leave(name, nil); err != nil {
			m.t.Fatal(err)
		}
		return
	}
	e.channels = append(e.channels, name)
	if err := e.conn.Join(name, "", func(Welcome, []*Message) []byte { return nil }); err != nil {
		m.t.Fatal(err)
	}
}

func (m *conflateModel) publish() {
	r := m.r
	var ms []*Message
	for range 1 + r.IntN(3)*r.IntN(3) {
		message := &Message{Channel: modelChannels[r.IntN(3)], Data: []byte(strings.Repeat("x", r.IntN(10)))}
		if r.IntN(3) > 0 {
			message.Conflate = NewConflateKey(fmt.Sprint("row:", r.IntN(4)))
		}
		ms = append(ms, message)
	}
	if err := m.h.Publish(ms...); err != nil {
		m.t.Fatal(err)
	}
	m.log = append(m.log, ms...)
	for _, message := range ms {
		for _, e := range m.open {
			if slices.Contains(e.channels, message.Channel) {
				e.due = append(e.due, message)
			}
		}
	}
}

// check has all clients read on, and compares what they got with what they were due.
func (m *conflateModel) check() {
	for _, e := range m.all {
		e.client.open(1 << 40)
		if !e.closed {
			e.conn.Close(ReasonClient, "")
		}
	}
	for _, e := range m.all {
		e.mu.Lock()
		for !strings.HasSuffix(string(e.got), string(seqs{}.Close(ReasonClient, ""))) {
			e.changed.Wait()
		}
		e.mu.Unlock()
		e.check(m.t)
		e.conn.Done()
	}
	waitFor(m.t, func() bool { return m.h.Stats().Connections == 0 })
	m.checkCounts()
}

// checkCounts: when all clients have gone, nothing counts but the history.
func (m *conflateModel) checkCounts() {
	var kept int64
	for s := m.h.history.oldest; s != nil; s = s.after {
		kept += s.message.memory()
	}
	if n := m.h.held.Load(); n != kept || m.h.backlog.Load() != 0 {
		m.t.Errorf("%d bytes are held, and the history has %d; %d wait", n, kept, m.h.backlog.Load())
	}
}

// checkOrder: what a client got is of what it was due, in order, and once.
func (e *conflating) checkOrder(t *testing.T) {
	got := e.received()
	due := make([]uint64, len(e.due))
	for i, m := range e.due {
		due[i] = m.Seq
	}
	for i, seq := range got {
		if i > 0 && seq <= got[i-1] || !slices.Contains(due, seq) {
			t.Fatalf("got %v, of %v", got, due)
		}
	}
}

// check: and it got all but what a newer one has replaced that it was due too, and only if something replaces what waits for it.
func (e *conflating) check(t *testing.T) {
	e.checkOrder(t)
	e.checkReplies(t)
	got := e.received()
	newest := make(map[conflated]uint64)
	for _, m := range e.due {
		newest[conflated{m.Channel, m.Conflate}] = m.Seq
	}
	for _, m := range e.due {
		may := m.Conflate.IsSet() && newest[conflated{m.Channel, m.Conflate}] > m.Seq && (e.skips || m.Seq <= e.history)
		if !may && !slices.Contains(got, m.Seq) {
			t.Fatalf("message %d on %q with key %q is missing in %v", m.Seq, m.Channel, m.Conflate, got)
		}
	}
}

// TestConflateShared: a conflate key goes through a shared log with the data, and what no hub has written is no message.
func TestConflateShared(t *testing.T) {
	m := &Message{Channel: "a", Kind: JSON, Data: []byte("[1]"), Conflate: NewConflateKey("row:7")}
	e := entriesOf([]*Message{m}, 0)[0]
	got := messageOf(&e, time.Now())
	if got == nil || got.Conflate != m.Conflate || string(got.Data) != "[1]" || got.Kind != JSON {
		t.Errorf("got %+v", got)
	}
	for _, p := range []string{"", "\x00", "\x02a", "\x00[1]", "\x01\x00[1]", "\x01\xff[1]"} {
		e := broker.Entry{Channel: "a", Kind: uint8(JSON) | kindConflate, Data: []byte(p)}
		if got := messageOf(&e, time.Now()); got != nil {
			t.Errorf("%q is %+v", p, got)
		}
	}
	both := broker.Entry{Channel: "a", Kind: kindConflate | kindEmit, Data: []byte("\x01a[1]")}
	if messageOf(&both, time.Now()) != nil {
		t.Error("an emit has a conflate key")
	}
	// Another conflate key is another message, for the same idempotency key.
	a, b := &Message{Channel: "a", Conflate: NewConflateKey("1")}, &Message{Channel: "a"}
	if a.sharedDigest() == b.sharedDigest() {
		t.Error("the digest does not have the conflate key")
	}
}

// TestConflateChecked: a conflate key is text as a channel's name is, and a message that only some get has none.
func TestConflateChecked(t *testing.T) {
	h := New(Config{})
	defer closeHub(h)
	for _, m := range []*Message{
		{Channel: "a", Conflate: NewConflateKey("a\x00")},
		{Channel: "a", Conflate: NewConflateKey("\xff")},
		{Channel: "a", Conflate: NewConflateKey(strings.Repeat("x", MaxName+1))},
		{Channel: "a", Conflate: NewConflateKey("a"), Emit: &Emit{Except: []string{"n"}}},
	} {
		if err := h.Publish(m); err == nil {
			t.Errorf("%q was published", m.Conflate)
		}
	}
}
