package hub

import (
	"fmt"
	"slices"
	"strings"
)

// is reports whether a connection is on a channel, or has a name.
func (e *expected) is(room string) bool { return slices.Contains(e.channels, room) || e.name == room }

// gets reports whether a connection gets a message of an emit to some rooms that it has not got by another one before.
func (e *expected) gets(m *Message) bool {
	if m.Emit == nil {
		return slices.Contains(e.channels, m.Channel)
	}
	return !slices.ContainsFunc(m.Emit.Except, e.is) &&
		e.is(m.room()) && (m.Emit.To != "" || slices.Contains(e.channels, m.Channel)) &&
		slices.IndexFunc(m.Emit.Rooms, e.is) == slices.Index(m.Emit.Rooms, m.room())
}

// emit publishes what only Socket.IO says, from a connection or not.
func (m *model) emit() {
	r := m.r
	room := func() string {
		if r.IntN(4) == 0 {
			return fmt.Sprint("n", 1+r.IntN(m.names+1)) // which may have gone
		}
		return modelChannels[r.IntN(len(modelChannels))]
	}
	message := &Message{Channel: "a", Emit: &Emit{}}
	var rooms []string
	for range 1 + r.IntN(4) {
		rooms = append(rooms, room())
	}
	for range r.IntN(3) * r.IntN(2) {
		message.Emit.Except = append(message.Emit.Except, room())
	}
	var from *expected
	if len(m.open) > 0 && r.IntN(4) == 0 {
		from = m.open[r.IntN(len(m.open))]
		message.From, message.NoEcho = from.conn, from.noEcho
	}
	ms := ToRooms(message, rooms, func(s string) bool { return strings.HasPrefix(s, "n") })
	if err := m.h.Publish(ms...); err != nil {
		m.t.Fatal(err)
	}
	m.log = append(m.log, ms...)
	for _, message := range ms {
		for _, e := range m.open {
			if e.gets(message) && (e != from || !e.noEcho) {
				e.want = append(e.want, message.Seq)
			}
		}
	}
}

// takeOver has a client with a name come back, though its connection is open, after a message that it may have got.
func (m *model) takeOver() {
	i := m.r.IntN(len(m.open))
	old := m.open[i]
	if old.name == "" {
		return
	}
	e := &expected{client: newClient(), channels: old.channels, name: old.name, noEcho: old.noEcho, given: old.given}
	o := options()
	o.Format, o.MaxBacklog = old.conn.options.Format, 1<<20
	e.blocks = m.r.IntN(3) == 0
	conn, _, err := m.h.Connect(Subscriber{}, o)
	if err != nil {
		m.t.Fatal(err)
	}
	e.conn = conn
	conn.Start(e, nil)
	after := old.given + m.r.IntN(len(m.log)-old.given+1)
	enter(m.t, e.client, Entrance{Channels: e.channels, Name: e.name, Keep: true, Whole: true, LastID: m.idAt(after)})
	e.want = m.missed(e, after)
	m.open[i] = e
	m.left = append(m.left, old)
}
