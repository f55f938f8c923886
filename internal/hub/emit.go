package hub

import (
	"errors"
	"fmt"
	"slices"
)

// Emit has what only messages from Socket.IO clients and backends have. Most messages have none, so it is a struct of its own, and a
// Message stays as small as it was. It belongs to the hub, as its message does, and must not be published again.
type Emit struct {
	// Args is the JSON array of the arguments, without the event, and Attachments are the bytes that its placeholders stand
	// for. If Args is nil, Data is the only argument. Clients of other protocols always get Data.
	Args        []byte
	Attachments [][]byte

	// Rooms are all channels that the emit goes to, if there are several, in the order of its messages. Some may be names (To).
	// One call publishes all of these messages: see ToRooms. A connection gets only the first that reaches it.
	Rooms []string

	// Except lists names of connections that do not get the message, and channels whose connections do not get it.
	Except []string

	// To is the name of the only connection that gets the message. Message.Channel then only identifies its namespace.
	To string

	// The hub's own:
	id       uint64  // the same in all messages of one emit, and in no other
	size     int     // of it in memory; more than 0 once it was checked
	wired    int     // at most how many bytes it adds to an encoded message
	skip     []*Conn // the connections that have a name in Except when it is published
	rooms    bool    // Except has channels with subscribers
	resolved bool    // skip and rooms are set
}

const (
	// maxRooms bounds the rooms of an emit, and what it excepts. In a shared log each of its messages names all rooms, so
	// what the emit takes there grows with their square.
	maxRooms = 256

	// maxAttachments bounds the attachments. Socket.IO clients accept ten (socket.io-parser, maxAttachments).
	maxAttachments = 64

	// partOverhead is about what a string or an attachment of an Emit takes besides its bytes, in memory or on the wire.
	partOverhead = 32
)

// ToRooms returns the messages that send m to several rooms, one for each, which one call of Publish has to publish. Duplicate
// rooms count once. A room for which isName, if set, returns true is a name, and gets a private message. Any other is a channel,
// which replaces m.Channel.
func ToRooms(m *Message, rooms []string, isName func(string) bool) []*Message {
	var all Emit
	if m.Emit != nil {
		e := m.Emit
		all = Emit{Args: e.Args, Attachments: e.Attachments, Except: e.Except}
	}
	for _, r := range rooms {
		if len(all.Rooms) <= maxRooms && !slices.Contains(all.Rooms, r) { // more are refused by check
			all.Rooms = append(all.Rooms, r)
		}
	}
	shared := &all // by those to channels
	if len(all.Rooms) > 1 {
		all.id = randomID()
	}
	ms := make([]*Message, len(all.Rooms))
	for i, r := range all.Rooms {
		ms[i] = &Message{
			Channel: r, Event: m.Event, Data: m.Data, Kind: m.Kind, NoEcho: m.NoEcho, From: m.From, Emit: shared, Transient: m.Transient,
			Key: m.Key, Publisher: m.Publisher, Owner: m.Owner, Source: m.Source,
		}
		if isName != nil && isName(r) {
			own := all
			own.To = r
			ms[i].Channel, ms[i].Emit = m.Channel, &own
		}
	}
	if len(ms) == 1 {
		e := ms[0].Emit
		e.Rooms = nil
		// Without one it is a message that nodes of earlier versions know too.
		if e.Args == nil && e.Except == nil && e.To == "" {
			ms[0].Emit = nil
		}
	}
	return ms
}

// cost returns what it takes in memory. A message without one has 0.
func (e *Emit) cost() int {
	if e == nil {
		return 0
	}
	return e.size
}

// wire returns at most how many bytes it adds to a message that is encoded.
func (e *Emit) wire() int {
	if e == nil {
		return 0
	}
	return e.wired
}

// private reports whether the message is for one connection alone.
func (m *Message) private() bool { return m.Emit != nil && m.Emit.To != "" }

// room returns which of Emit.Rooms the message is for.
func (m *Message) room() string {
	if m.Emit.To != "" {
		return m.Emit.To
	}
	return m.Channel
}

// several reports whether the message is one of several that are one emit.
func (m *Message) several() bool { return m.Emit != nil && len(m.Emit.Rooms) > 1 }

// check returns an error if the emit is invalid, and notes its size. It does not look at placeholders: the publisher has to check
// them, because that takes the protocol's grammar.
func (e *Emit) check(m *Message) error {
	if len(e.Rooms) > 1 && !slices.Contains(e.Rooms, m.room()) {
		return errors.New("the channel is none of the rooms")
	}
	if e.size > 0 {
		return nil // it was checked with another message of the emit
	}
	if len(e.Rooms) > maxRooms || len(e.Except) > maxRooms {
		return fmt.Errorf("more than %d rooms or exceptions", maxRooms)
	}
	if len(e.Attachments) > maxAttachments || len(e.Attachments) > 0 && e.Args == nil {
		return fmt.Errorf("more than %d attachments, or none that has arguments", maxAttachments)
	}
	size := partOverhead*(4+len(e.Rooms)+len(e.Except)+len(e.Attachments)) + cap(e.Args) + len(e.To)
	for _, names := range [...][]string{e.Rooms, e.Except} {
		for _, name := range names {
			if err := CheckName("the room", name); err != nil {
				return err
			}
			size += len(name)
		}
	}
	if e.To != "" {
		if err := CheckName("the name", e.To); err != nil {
			return err
		}
	}
	if e.Args != nil {
		if err := checkJSON(e.Args); err != nil {
			return fmt.Errorf("the arguments %w", err)
		}
		if e.Args[0] != '[' { // where packets are made of it, the array begins at once
			return errors.New("the arguments are no JSON array")
		}
	}
	wired := len(e.Args)
	for _, a := range e.Attachments {
		size += cap(a)
		wired += (len(a)+2)/3*4 + partOverhead // base64, where there are no binary frames
	}
	e.size, e.wired = size, wired
	return nil
}

// resolveLocked finds the connections that have an excepted name. It is called when the message is published, because another
// connection may have the name by the time the message is delivered.
func (h *Hub) resolveLocked(e *Emit) {
	if e.resolved || len(e.Except) == 0 {
		return
	}
	e.resolved = true
	for _, name := range e.Except {
		if ch := h.channels[name]; ch != nil && ch.subscribers > 0 {
			e.rooms = true
		}
		if n := h.names[name]; n != nil && n.conn != nil {
			e.skip = append(e.skip, n.conn)
		}
	}
}

// withholds reports whether a connection must not get the message, because it has published it itself or is excepted by its
// name.
func (m *Message) withholds(c *Conn) bool {
	return m.NoEcho && m.From == c || m.Emit != nil && slices.Contains(m.Emit.skip, c)
}

// hearer is the connection that the history is read for, together with the channels and the name that it is about to have.
type hearer struct {
	conn     *Conn
	channels []string // sorted
	name     string
	received uint64 // the position of the last message that it received, or 0
}

// isLocked reports whether the connection is on a channel, or has a name.
func (x *hearer) isLocked(room string) bool {
	if room == x.name {
		return true
	}
	if _, found := slices.BinarySearch(x.channels, room); found {
		return true
	}
	if _, on := x.conn.findLocked(room); on {
		return true
	}
	n := x.conn.hub.names[room]
	return n != nil && n.conn == x.conn
}

// comesLocked reports whether the connection has got what is at a position of another channel or for a name, or is about to. A
// backend has it join a channel with what came since, and that takes time.
func (x *hearer) comesLocked(room string, seq uint64) bool {
	names := x.conn.hub.namesOf[x.conn]
	if len(names) == 0 || seq <= x.conn.hub.names[names[0]].joined {
		return false
	}
	_, on := x.conn.findLocked(room)
	return on || slices.Contains(names, room)
}

// missesLocked reports whether a connection does not get a message of the history: it is excepted, or gets the same emit by a
// room that comes before. Only names tell that here: the connection that was there before is another one.
func (x *hearer) missesLocked(m *Message) bool {
	e := m.Emit
	for _, room := range e.Except { // no closure: a hearer is not allocated for each connection
		if x.isLocked(room) {
			return true
		}
	}
	at := slices.Index(e.Rooms, m.room())
	for i, room := range e.Rooms {
		if i < at && x.isLocked(room) || i > at && x.comesLocked(room, m.Seq+uint64(i-at)) {
			return true
		}
	}
	// It may have it by a room that it has left since: the messages of an emit follow each other.
	return at > 0 && m.Seq-uint64(at) <= x.received
}
