package hub

import (
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Kind is the kind of a message's data.
type Kind uint8

// The kinds of data.
const (
	Text   Kind = iota // UTF-8
	Binary             // any bytes
	JSON               // a JSON value, in UTF-8
)

// Message is what is published once and delivered to every subscriber of its channel. After Publish it is shared by
// all loops, and nothing in it changes except the encodings that the wire formats keep in it.
type Message struct {
	Channel string
	Event   string
	Data    []byte
	Kind    Kind

	// Transient messages are delivered to those that are connected, and not kept: a client that comes back does not get
	// them, and is not told that it misses them.
	Transient bool

	// From is the connection that publishes, if one does. With NoEcho it does not get the message itself.
	NoEcho bool

	holders atomic.Int32 // the history, as inHistory, and the backlogs that still have it; here, as it fits in

	From *Conn

	// Key, if set, tells the message from others of its Publisher on its channel: another one with the same key within
	// two minutes is not published, and is given the Seq of the first; or, if it says something else, is an error.
	Key, Publisher string

	// Owner is who the key takes space for, if that is not the Publisher: publishers without a name are one, but have
	// one address each.
	Owner string

	// Source names how it came, to count by.
	Source string

	// Conflate, if set, lets the message replace those before it that have the same one, on its channel.
	Conflate ConflateKey

	// Emit is what is said of it only by Socket.IO, or nil.
	Emit *Emit

	// Set by Publish:
	Seq         uint64    // its place in the log, from 1
	Time        time.Time // when it was published
	Subscribers int       // how many its channel had

	origin *origin // of Seq

	mu      sync.Mutex
	encoded []encoding

	encodedBytes atomic.Int32 // what of encoded counts in Hub.held

	encodedData uint32 // the bytes of Data in the wire format that makes the most of it; as much as fits, which is more than any limit
}

// encoding is a wire form that all loops share.
type encoding struct {
	key   any
	bytes []byte
}

// messageOverhead is about what a waiting message costs in addition to its data.
const messageOverhead = 256

// cost returns about what the message takes while it waits in an inbox.
func (m *Message) cost() int { return len(m.Data) + messageOverhead + m.Emit.cost() }

// What wire formats add to a message: about, and at most.
const (
	frameOverhead    = 16
	maxFrameOverhead = 192
)

// batchSize returns about how many bytes the message adds to a batch.
func (m *Message) batchSize() int {
	return int(m.encodedData) + m.Emit.wire() + len(m.Event) + frameOverhead
}

// size returns at most how many bytes the message takes when it is encoded, in whatever format: of the names a quote
// and a backslash are escaped.
func (m *Message) size() int {
	return int(m.encodedData) + m.Emit.wire() + 2*(len(m.Channel)+len(m.Event)) + maxFrameOverhead
}

// ID returns the message's identity: the hub's epoch and the sequence number. It is opaque to clients.
func (m *Message) ID() string { return FormatID(m.epoch(), m.Seq) }

// origin is where positions come from: a hub, in one of its epochs. Messages refer to it, so that each keeps its ID when
// the hub's epoch changes.
type origin struct {
	hub   *Hub
	epoch string
}

// epoch returns that of the hub when the message was published.
func (m *Message) epoch() string {
	if m.origin == nil {
		return ""
	}
	return m.origin.epoch
}

// AppendID appends the message's ID.
func (m *Message) AppendID(dst []byte) []byte {
	return strconv.AppendUint(append(append(dst, m.epoch()...), '-'), m.Seq, 10)
}

// FormatID makes an ID of an epoch and a sequence number.
func FormatID(epoch string, seq uint64) string {
	return string(strconv.AppendUint(append(append(make([]byte, 0, 32), epoch...), '-'), seq, 10))
}

// maxID is the length in bytes of the longest ID.
const maxID = 64

// parseID is the inverse of FormatID. It reports false for an ID that FormatID cannot have made.
func parseID(id string) (epoch string, seq uint64, ok bool) {
	i := strings.LastIndexByte(id, '-')
	if len(id) > maxID || i < 0 {
		return "", 0, false
	}
	seq, err := strconv.ParseUint(id[i+1:], 10, 64)
	return id[:i], seq, err == nil && FormatID(id[:i], seq) == id
}

// Encoded returns what encode returns for the message. It is called once for all loops, so it is for encodings that are
// costly, such as compression.
func (m *Message) Encoded(key any, encode func(*Message) []byte) []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range m.encoded {
		if e.key == key {
			return e.bytes
		}
	}
	p := encode(m)
	m.encoded = append(m.encoded, encoding{key, p})
	m.countEncoded(cap(p))
	return p
}

// Format turns messages into bytes. Its values are comparable and few: connections of equal formats on one channel
// share their bytes. The methods are called by several loops at once.
type Format interface {
	// Append appends a run of messages, in order, to dst.
	Append(dst []byte, run []*Message) []byte

	// Ping returns what is sent to a quiet connection to learn whether it lives. It is shared.
	Ping() []byte

	// Close returns what is sent last, made of the reason and a text for people. Unless the connection is one-way, the
	// peer replies and closes the connection.
	Close(why Reason, text string) []byte

	// Gap returns what tells a connection that it misses messages of some channels, nil where the format has no such
	// thing.
	Gap(channels []string) []byte
}

// GapFormat is a Format whose notice of a gap can have the position from which on nothing is missed. The client resumes from
// there, and is not told of the same gap again.
type GapFormat interface {
	Format
	GapAt(channels []string, id string) []byte
}

// GaplessFormat is a Format that has no notice of a gap, but whose client is told of one when it connects again and cannot resume.
// If ClosesOnGap, a connection that has lost something is closed, before the client gets a position beyond it. That is not for
// a full backlog that drops its oldest messages: somebody wants that.
type GaplessFormat interface {
	Format
	ClosesOnGap() bool
}

// PartingFormat is a Format whose last words depend on the channels that the connection was on.
type PartingFormat interface {
	Format
	CloseOn(channels []string, why Reason, text string) []byte
}

// PacedFormat is a Format whose client ends the connection if no ping comes, though messages do (Engine.IO v4, timing out). If
// PingsBusy, then connections with a backlog are pinged as well.
type PacedFormat interface {
	Format
	PingsBusy() bool
}
