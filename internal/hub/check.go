package hub

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"unicode/utf8"
)

// An InvalidError says why Publish rejected messages: one of them has something that a client could not accept.
type InvalidError struct {
	Index int // of the message, among those that were to be published together
	Err   error
}

func (e *InvalidError) Error() string { return e.Err.Error() }
func (e *InvalidError) Unwrap() error { return e.Err }

// checkAll checks messages before they get their places in the log.
func checkAll(ms []*Message) error {
	for i, m := range ms {
		if err := m.check(); err != nil {
			return &InvalidError{i, err}
		}
	}
	return nil
}

// maxPublisher is the length in bytes of the longest Message.Publisher: a user's name, and what is put before it.
const maxPublisher = MaxName + 64

// check reports what in the message some client could not accept, if anything. Every message passes it, whatever way it
// came, so a message in the log can be sent to anybody. It also notes how large the message is when it is encoded.
func (m *Message) check() error {
	if err := CheckName("the channel", m.Channel); err != nil {
		return err
	}
	if m.Event != "" {
		if err := CheckName("the event", m.Event); err != nil {
			return err
		}
	}
	if m.Key != "" {
		if err := CheckName("the key", m.Key); err != nil {
			return err
		}
	}
	if m.Conflate.IsSet() {
		if err := m.checkConflate(); err != nil {
			return err
		}
	}
	if len(m.Publisher) > maxPublisher {
		return fmt.Errorf("the publisher has %d bytes, more than %d", len(m.Publisher), maxPublisher)
	}
	encoded := 0
	switch m.Kind {
	case Text:
		if !utf8.Valid(m.Data) {
			return errors.New("the data is not UTF-8, as text has to be; publish it as binary data")
		}
		encoded = encodedText(m.Data)
	case JSON:
		if err := checkJSON(m.Data); err != nil {
			return fmt.Errorf("the data %w", err)
		}
		encoded = len(m.Data) + eventStreamLine*(bytes.Count(m.Data, []byte{'\n'})+bytes.Count(m.Data, []byte{'\r'}))
	case Binary:
		encoded = (len(m.Data) + 2) / 3 * 4
	default:
		return fmt.Errorf("the kind %d of data is unknown", m.Kind)
	}
	m.encodedData = uint32(min(encoded, math.MaxUint32))
	if m.Emit != nil {
		return m.Emit.check(m)
	}
	return nil
}

// What a byte of text takes besides itself: in an event stream, where each line begins with "data: ", and in a JSON
// string, where it is escaped.
const (
	eventStreamLine = len("data: ")
	controlEscape   = len(`\u0000`) - 1
	shortEscape     = len(`\"`) - 1
)

// growth is how many bytes a byte of text takes besides itself: in an event stream, and in a JSON string from the 32nd
// bit on.
var growth = func() (t [256]uint64) {
	for c := range byte(' ') {
		t[c] = uint64(controlEscape) << 32
	}
	for _, c := range "\"\\\t\n\r" {
		t[c] = uint64(shortEscape) << 32
	}
	t['\n'] |= uint64(eventStreamLine)
	t['\r'] |= uint64(eventStreamLine)
	return t
}()

// encodedText returns how many bytes text takes in the format that takes most. Most text has nothing that takes more
// than it is, so it looks at eight bytes at once.
func encodedText(p []byte) int {
	n, more := len(p), uint64(0)
	for ; len(p) >= 8; p = p[8:] {
		const ones = 0x0101010101010101
		w := binary.LittleEndian.Uint64(p)
		quote, slash := w^'"'*ones, w^'\\'*ones
		// A byte's highest bit is set where it is less than a space, or, in the other two, zero.
		if ((w-' '*ones)&^w|(quote-ones)&^quote|(slash-ones)&^slash)&(0x80*ones) != 0 {
			for _, c := range p[:8] {
				more += growth[c]
			}
		}
	}
	for _, c := range p {
		more += growth[c]
	}
	return n + int(max(more>>32, more&(1<<32-1)))
}
