package hub

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestConflateModel runs random publishes, with and without conflate keys, that history keeps or does not, to clients of every kind
// and speed, that join, leave, resume and close, against the guarantee in docs/delivery.md.
func TestConflateModel(t *testing.T) {
	seed := rand.Uint64()
	var seen conflateSeen
	for round := range 200 {
		if !t.Run(fmt.Sprint("seed ", seed, ",", round), func(t *testing.T) {
			runConflateModel(t, rand.New(rand.NewPCG(seed, uint64(round))), &seen)
		}) {
			return
		}
	}
	// Otherwise the test has nothing to find. Mostly there are some ten times as many.
	if seen.skipped < 200 || seen.dropped < 20 || seen.slow < 20 || seen.gaps < 20 || seen.resumed < 200 {
		t.Errorf("too little has happened: %+v", seen)
	}
}

// conflateSeen is what happened in all rounds together.
type conflateSeen struct{ skipped, dropped, slow, gaps, resumed int }

func runConflateModel(t *testing.T, r *rand.Rand, seen *conflateSeen) {
	m := &conflateModel{t: t, r: r, seen: seen, histories: make(map[string]*modelHistory)}
	config := Config{History: 1 + r.IntN(100)}
	few := r.IntN(4)
	config.Histories = []HistoryRule{{Matches: func(name string) bool { return name == "b" }, Count: few}}
	for _, name := range modelChannels[:3] {
		m.histories[name] = &modelHistory{count: config.History}
	}
	m.histories["b"].count = few
	m.h = New(config)
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
}

// conflateModel is a hub, and what was published.
type conflateModel struct {
	t         *testing.T
	r         *rand.Rand
	seen      *conflateSeen
	h         *Hub
	histories map[string]*modelHistory
	open, all []*conflating
}

// modelHistory is what the history of a channel must have.
type modelHistory struct {
	count   int
	kept    []*Message
	dropped uint64
}

func (x *modelHistory) publish(m *Message) {
	if m.Transient {
		return
	}
	x.kept = slices.DeleteFunc(x.kept, func(old *Message) bool { return m.Conflate.IsSet() && old.Conflate == m.Conflate })
	if x.kept = append(x.kept, m); len(x.kept) > x.count {
		x.dropped, x.kept = x.kept[0].Seq, x.kept[1:]
	}
}

// conflating is a connection, and what it is due.
type conflating struct {
	*client
	channels []string
	due      []*Message
	from     uint64 // where it began
	skips    bool   // it may miss what was replaced; else it gets all
	drops    bool   // it has DropOldest
	limited  bool   // it may be closed because it is slow
	closed   bool
	waits    bool // it has DeliverEvery
}

// options makes a client of some kind.
func (m *conflateModel) options(e *conflating) *ConnOptions {
	r := m.r
	o := options()
	o.Format = gaps{seqs{name: modelChannels[r.IntN(2)]}}
	o.MaxBacklog = 1 << 20
	if r.IntN(3) == 0 {
		o.MaxBacklog, e.limited = 1500+r.IntN(3000), true
	}
	switch r.IntN(4) {
	case 0:
		o.Conflate, e.skips = true, true
	case 1:
		o.DropOldest, e.drops = true, e.limited
	}
	if r.IntN(3) == 0 {
		o.DeliverEvery = time.Duration(1+r.IntN(3)) * time.Millisecond
		e.waits, e.skips = true, true
	}
	return o
}

func (m *conflateModel) connect(after *conflating) {
	r := m.r
	e := &conflating{client: newClient()}
	o := m.options(e)
	e.blocks = r.IntN(2) == 0
	e.window = 8 * r.IntN(20)
	var s Subscriber
	if after == nil {
		for _, i := range r.Perm(3)[:1+r.IntN(3)] {
			s.Channels = append(s.Channels, modelChannels[i])
		}
		if !e.limited { // or fewer are replayed
			s.Replay = r.IntN(2) * r.IntN(10)
		}
	} else {
		s.Channels = after.channels
		s.LastID = FormatID(m.h.epoch, after.position())
	}
	conn, w, err := m.h.Connect(s, o)
	if err != nil {
		m.t.Fatal(err)
	}
	e.conn = conn
	_, e.from, _ = parseID(w.ID)
	e.channels = slices.DeleteFunc(slices.Clone(s.Channels), func(name string) bool { return slices.Contains(w.Gaps, name) })
	if after != nil {
		m.resumed(e, after, s.Channels)
	} else {
		m.replayed(e, s.Replay)
	}
	conn.Start(e, nil)
	m.open = append(m.open, e)
	m.all = append(m.all, e)
	for _, name := range w.Gaps { // of these nothing is resumed; to keep the model simple it leaves them
		m.seen.gaps++
		conn.Leave(name, nil)
	}
}

// position is where a client that comes back goes on.
func (e *conflating) position() uint64 {
	if got := e.received(); len(got) > 0 {
		return got[len(got)-1]
	}
	return e.from
}

// replayed makes the last n messages of the history due.
func (m *conflateModel) replayed(e *conflating, n int) {
	for _, name := range e.channels {
		e.due = append(e.due, m.histories[name].kept...)
	}
	slices.SortFunc(e.due, bySeq)
	e.due = e.due[max(0, len(e.due)-n):]
}

// resumed makes what the history has due, and checks that nothing is missing: what the client was due and did not get has to come
// now, or a newer one of its conflate key, or there is a gap.
func (m *conflateModel) resumed(e, before *conflating, channels []string) {
	m.seen.resumed++
	from := before.position()
	for _, name := range channels {
		x := m.histories[name]
		if !slices.Contains(e.channels, name) {
			continue // a gap; there may always be one, because forgotten channels have lost what others have
		}
		if x.dropped > from {
			m.t.Fatalf("no gap on %q from %d, but %d is dropped", name, from, x.dropped)
		}
		for _, message := range x.kept {
			if message.Seq > from {
				e.due = append(e.due, message)
			}
		}
	}
	slices.SortFunc(e.due, bySeq)
	got := before.received()
	for _, message := range before.due {
		// A notice of a gap has told of what was dropped, and what history does not keep is not resumed.
		if message.Transient || !slices.Contains(e.channels, message.Channel) || before.drops || slices.Contains(got, message.Seq) {
			continue
		}
		if !slices.ContainsFunc(slices.Concat(before.due, e.due), func(other *Message) bool {
			comes := slices.Contains(got, other.Seq) || slices.Contains(e.due, other)
			return comes && (other == message || replaces(other, message))
		}) {
			m.t.Fatalf("message %d on %q with key %q is lost: it had %v, and resumes after %d", message.Seq, message.Channel, message.Conflate, got, from)
		}
	}
}

// replaces reports whether a client may be sent one message without the other. What history keeps is not replaced by what it
// does not keep, because that would not come again.
func replaces(newer, older *Message) bool {
	return newer.Seq > older.Seq && newer.Channel == older.Channel && newer.Conflate.IsSet() && newer.Conflate == older.Conflate && newer.Transient == older.Transient
}

// conflateReply marks a reply, whose other bits are the position at which it was sent.
const conflateReply = 1 << 40

// received returns the positions that a client has, without replies, gaps and the close.
func (e *conflating) received() []uint64 {
	got, _ := e.wait(0)
	return slices.DeleteFunc(got, func(v uint64) bool { return v&(conflateReply|gapMark) != 0 })
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
			if m&(conflateReply|gapMark) == 0 && (j < i && m > v&^conflateReply || j > i && m <= v&^conflateReply && !e.waits) {
				t.Fatalf("the reply at %d is not in order: %v", v&^conflateReply, got)
			}
		}
	}
}

func (m *conflateModel) takeOne() *conflating {
	i := m.r.IntN(len(m.open))
	e := m.open[i]
	m.open = slices.Delete(m.open, i, i+1)
	return e
}

func (m *conflateModel) closeOne() {
	e := m.takeOne()
	e.conn.Close(ReasonClient, "")
	e.closed = true
}

// resumeOne cuts a client off, whatever waits for it, and has it come back with its last position.
func (m *conflateModel) resumeOne() {
	e := m.takeOne()
	m.all = slices.DeleteFunc(m.all, func(x *conflating) bool { return x == e })
	e.Close() // else one that is being closed may write what waits
	e.conn.Done()
	waitFor(m.t, e.conn.Gone)
	e.checkOrder(m.t)
	m.connect(e)
}

func (m *conflateModel) joinOrLeave() {
	e := m.open[m.r.IntN(len(m.open))]
	name := modelChannels[m.r.IntN(3)]
	i := slices.Index(e.channels, name)
	var err error
	if i >= 0 {
		err = e.conn.Leave(name, nil)
	} else {
		err = e.conn.Join(name, "", func(Welcome, []*Message) []byte { return nil })
	}
	switch {
	case err != nil && !e.limited:
		m.t.Fatal(err)
	case err != nil: // it is closed
	case i >= 0:
		e.channels = slices.Delete(e.channels, i, i+1)
	default:
		e.channels = append(e.channels, name)
	}
}

func (m *conflateModel) publish() {
	r := m.r
	var ms []*Message
	for range 1 + r.IntN(3)*r.IntN(3) {
		message := &Message{Channel: modelChannels[r.IntN(3)], Data: []byte(strings.Repeat("x", r.IntN(10))), Transient: r.IntN(5) == 0}
		if r.IntN(3) > 0 {
			message.Conflate = NewConflateKey(fmt.Sprint("row:", r.IntN(4)))
		}
		ms = append(ms, message)
	}
	if err := m.h.Publish(ms...); err != nil {
		m.t.Fatal(err)
	}
	for _, message := range ms {
		m.histories[message.Channel].publish(message)
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
		for n := len(e.got); n < 8 || e.got[n-8]&(closeMark>>56) == 0; n = len(e.got) {
			e.changed.Wait()
		}
		e.mu.Unlock()
		m.checkClient(e)
		e.conn.Done()
	}
	waitFor(m.t, func() bool { return m.h.Stats().Connections == 0 })
	m.checkCounts()
}

// checkCounts: when all clients have gone, nothing counts but the history.
func (m *conflateModel) checkCounts() {
	var kept int64
	for s := m.h.history.oldest; s != nil; s = s.in[inAll].after {
		kept += s.message.memory()
	}
	// More flushers than stay may have been started on a busy machine, which count until they end.
	waitFor(m.t, func() bool { return m.h.held.Load() == kept && m.h.backlog.Load() == 0 })
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

// checkClient: and it got all but what a newer one has replaced that it was due too, and only if something replaces what waits for
// it; or it was told of a gap there; or it was closed because it is slow, and got all that came before.
func (m *conflateModel) checkClient(e *conflating) {
	e.checkOrder(m.t)
	e.checkReplies(m.t)
	got, why := e.wait(0)
	if why == ReasonSlow && !e.limited || why != ReasonSlow && why != ReasonClient {
		m.t.Fatalf("closed for %v", why)
	}
	if !e.drops && slices.ContainsFunc(got, func(v uint64) bool { return v&gapMark != 0 }) {
		m.t.Fatalf("a gap in %v", got)
	}
	if why == ReasonSlow {
		m.seen.slow++
	}
	for _, message := range e.due {
		if slices.Contains(got, message.Seq) {
			continue
		}
		switch {
		case e.skips && slices.ContainsFunc(e.due, func(other *Message) bool { return replaces(other, message) }):
			m.seen.skipped++
		case why == ReasonSlow && message.Seq > e.position():
		case gapAt(got, message.Seq):
			m.seen.dropped++
		default:
			m.t.Fatalf("message %d on %q with key %q is missing in %v, closed for %v", message.Seq, message.Channel, message.Conflate, got, why)
		}
	}
}

// gapAt reports whether there is a notice of a gap where a message is missing.
func gapAt(got []uint64, seq uint64) bool {
	gap := false
	for _, v := range got {
		switch {
		case v&gapMark != 0:
			gap = true
		case v&conflateReply != 0:
		case v > seq:
			return gap
		default:
			gap = false
		}
	}
	return gap
}
