package nodes

import (
	"encoding/binary"
	"errors"
	"math"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
)

// A message between nodes is a byte with the version, one with the kind, and then its fields. Numbers are uvarints, and
// texts are preceded by their length. Other versions, unknown kinds, and bytes after the known fields are ignored, so nodes
// of two releases understand each other.
const messageVersion = 1

const (
	kindBeat     = 1 // the sender is alive
	kindGoodbye  = 2 // the sender ends
	kindQuestion = 3
	kindAnswer   = 4 // a part of one
	kindTold     = 6 // what Tell sends
	kindForgot   = 5 // the sender has removed the receiver's counts, because it seemed to be dead
)

const (
	maxText  = 255     // bytes, of the texts in a beat
	maxKind  = 64      // bytes, of a question's kind
	partSize = 255_000 // bytes of an answer in one message. The rest of broker.MaxMessage is for its fields
	maxParts = (MaxAnswer + partSize - 1) / partSize
)

// errMessage is the error for a message that does not have the format of nodes.
var errMessage = errors.New("not a message of a node")

// beat says that a node is alive.
type beat struct {
	run    uint64 // counts the node's connections to brokers. What an earlier one says may come later, and does not count
	period time.Duration
	asks   bool // the sender has just begun, and wants to hear from the others
	node   Node // without its ID, which comes from the broker
}

// reader reads the fields of a message. After an error all are zero.
type reader struct {
	rest []byte
	bad  bool
}

func (r *reader) number() uint64 {
	n, size := binary.Uvarint(r.rest)
	if size <= 0 || r.bad {
		r.bad, r.rest = true, nil
		return 0
	}
	r.rest = r.rest[size:]
	return n
}

func (r *reader) text(limit int) string {
	n := r.number()
	if n > uint64(limit) || n > uint64(len(r.rest)) {
		r.bad, r.rest = true, nil
		return ""
	}
	s := string(r.rest[:n])
	r.rest = r.rest[n:]
	return s
}

// appendText appends a text, without what is too long.
func appendText(p []byte, s string, limit int) []byte {
	s = s[:min(len(s), limit)]
	return append(binary.AppendUvarint(p, uint64(len(s))), s...)
}

func (b *beat) append(p []byte) []byte {
	p = append(p, messageVersion, kindBeat)
	p = binary.AppendUvarint(p, b.run)
	p = binary.AppendUvarint(p, uint64(b.period.Milliseconds()))
	var flags uint64
	if b.asks {
		flags = 1
	}
	p = binary.AppendUvarint(p, flags)
	p = binary.AppendUvarint(p, uint64(b.node.Started.UnixMilli()))
	p = binary.AppendUvarint(p, uint64(b.node.Connections))
	p = binary.AppendUvarint(p, b.node.Seq)
	p = appendText(p, b.node.Name, maxText)
	p = appendText(p, b.node.Version, maxText)
	return appendText(p, b.node.Epoch, maxText)
}

// read reads what comes after the kind.
func (b *beat) read(p []byte) error {
	r := reader{rest: p}
	b.run = r.number()
	// A sender that says more is not believed, or it would stay for ever.
	b.period = time.Duration(min(r.number(), uint64(maxPeriod.Milliseconds()))) * time.Millisecond
	b.asks = r.number()&1 != 0
	b.node.Started = time.UnixMilli(int64(min(r.number(), maxMillis)))
	b.node.Connections = int(min(r.number(), math.MaxInt32))
	b.node.Seq = r.number()
	b.node.Name, b.node.Version, b.node.Epoch = r.text(maxText), r.text(maxText), r.text(maxText)
	if r.bad || b.period < minPeriod {
		return errMessage
	}
	return nil
}

// maxMillis is the end of the year 9999: encoding/json refuses later times.
const maxMillis = 253_402_300_799_000

// part is a part of an answer.
type part struct {
	question    uint64
	index, many int // of the parts of this answer
	data        []byte
}

func (a *part) append(p []byte) []byte {
	p = append(p, messageVersion, kindAnswer)
	p = binary.AppendUvarint(p, a.question)
	p = binary.AppendUvarint(p, uint64(a.index))
	p = binary.AppendUvarint(p, uint64(a.many))
	return append(p, a.data...)
}

func (a *part) read(p []byte) error {
	r := reader{rest: p}
	a.question = r.number()
	index, many := r.number(), r.number()
	if r.bad || many < 1 || many > maxParts || index >= many || len(r.rest) > partSize {
		return errMessage
	}
	a.index, a.many, a.data = int(index), int(many), r.rest
	return nil
}

// question is what Ask sends.
type question struct {
	id   uint64
	kind string
	data []byte
}

func (q *question) append(p []byte) []byte {
	p = append(p, messageVersion, kindQuestion)
	p = binary.AppendUvarint(p, q.id)
	p = appendText(p, q.kind, maxKind)
	return append(p, q.data...)
}

func (q *question) read(p []byte) error {
	r := reader{rest: p}
	q.id, q.kind = r.number(), r.text(maxKind)
	if r.bad || q.kind == "" {
		return errMessage
	}
	q.data = r.rest
	return nil
}

// kindOf returns the kind of a message and what follows, or 0 for what is not for this version.
func kindOf(message []byte) (kind byte, rest []byte) {
	if len(message) < 2 || len(message) > broker.MaxMessage || message[0] != messageVersion {
		return 0, nil
	}
	return message[1], message[2:]
}
