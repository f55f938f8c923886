package hub

import (
	"slices"
	"time"
)

// restart ends the hub, and has another one go on. Most connections come back to it, with the position of a message that they
// may have got.
func (m *model) restart() {
	closed := make(chan struct{})
	go func() {
		m.h.Close(ReasonRestart, "", 0, time.Minute)
		close(closed)
	}()
	for _, e := range m.left { // those that closed before
		e.wait(len(e.want) + 1)
		e.conn.Done()
	}
	for _, e := range m.open {
		got, why := e.wait(len(e.want) + 1)
		if !slices.Equal(got, e.want) || why != ReasonRestart {
			m.t.Fatalf("a connection on %q got %v and %v before the restart, not %v", e.channels, got, why, e.want)
		}
		e.conn.Done()
	}
	<-closed
	next := New(m.h.config)
	if err := next.Restore(m.h.Save(nil)); err != nil {
		m.t.Fatal(err)
	}
	before := m.open
	m.h, m.open = next, nil
	for _, e := range before {
		if m.r.IntN(5) > 0 {
			m.comeBack(e)
		}
	}
}

// comeBack connects a client after the restart.
func (m *model) comeBack(before *expected) {
	e := &expected{client: newClient(), channels: before.channels, name: before.name, noEcho: before.noEcho, given: before.given}
	o := options()
	o.Format, o.MaxBacklog = before.conn.options.Format, 1<<20
	e.blocks = m.r.IntN(3) == 0
	after := e.given + m.r.IntN(len(m.log)-e.given+1)
	var s Subscriber
	if e.name == "" { // others enter
		s = Subscriber{Channels: e.channels, LastID: m.idAt(after)}
	}
	conn, w, err := m.h.Connect(s, o)
	if err != nil {
		m.t.Fatal(err)
	}
	if e.name == "" && !w.Resumed && len(e.channels) > 0 {
		m.t.Fatalf("after the restart a connection on %q is told of gaps: %q", e.channels, w.Gaps)
	}
	e.conn = conn
	conn.Start(e, nil)
	if e.name != "" {
		enter(m.t, e.client, Entrance{Channels: e.channels, Name: e.name, Keep: true, Whole: true, LastID: m.idAt(after)})
	}
	e.want = m.missed(e, after)
	m.open = append(m.open, e)
}

// idAt returns the position after some messages of the log.
func (m *model) idAt(n int) string {
	seq := uint64(0)
	if n > 0 {
		seq = m.log[n-1].Seq
	}
	return FormatID(m.h.epoch, seq)
}

// missed returns what a connection that comes back after some messages of the log gets: what was kept of the others, and not
// replaced by a newer one with the same conflate key.
func (m *model) missed(e *expected, after int) (seqs []uint64) {
	for i, message := range m.log[after:] {
		replaced := message.Conflate.IsSet() && slices.ContainsFunc(m.log[after+i+1:], func(newer *Message) bool {
			return newer.Channel == message.Channel && newer.Conflate == message.Conflate && !newer.Transient
		})
		if e.gets(message) && !message.Transient && !replaced {
			seqs = append(seqs, message.Seq)
		}
	}
	return seqs
}
