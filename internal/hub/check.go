package hub

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
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
	if err := CheckName(m.Channel); err != nil {
		return fmt.Errorf("the channel %w", err)
	}
	if m.Event != "" {
		if err := CheckName(m.Event); err != nil {
			return fmt.Errorf("the event %w", err)
		}
	}
	if m.Key != "" {
		if err := CheckName(m.Key); err != nil {
			return fmt.Errorf("the key %w", err)
		}
	}
	if len(m.Publisher) > maxPublisher {
		return fmt.Errorf("the publisher has %d bytes, more than %d", len(m.Publisher), maxPublisher)
	}
	switch m.Kind {
	case Text:
		if !utf8.Valid(m.Data) {
			return errors.New("the data is not UTF-8, as text has to be; publish it as binary data")
		}
		m.encodedData = encodedText(m.Data)
	case JSON:
		if err := checkJSON(m.Data); err != nil {
			return fmt.Errorf("the data %w", err)
		}
		m.encodedData = len(m.Data) + eventStreamLine*(bytes.Count(m.Data, []byte{'\n'})+bytes.Count(m.Data, []byte{'\r'}))
	case Binary:
		m.encodedData = (len(m.Data) + 2) / 3 * 4
	default:
		return fmt.Errorf("the kind %d of data is unknown", m.Kind)
	}
	return nil
}

// MaxDepth is how deep arrays and objects may be nested in JSON. Some parsers stop at 64 levels unless they are told
// otherwise (.NET's), and broadcast.v1 puts two around the data.
const MaxDepth = 60

// checkJSON reports what is wrong with a JSON text, if anything. Besides the syntax (RFC 8259) it wants what common
// parsers insist on, most of which I-JSON (RFC 7493) wants too: Unicode, no number beyond the range of a float64, and no
// more than MaxDepth levels. Objects that have a name twice pass.
func checkJSON(p []byte) error {
	if !json.Valid(p) {
		return errors.New("is not JSON")
	}
	if err := CheckUnicode(p); err != nil {
		return err
	}
	depth := 0
	for i := 0; i < len(p); {
		switch c := p[i]; {
		case c == '"':
			i += stringLength(p[i:])
			continue
		case c == '[' || c == '{':
			if depth++; depth > MaxDepth {
				return fmt.Errorf("is JSON of more than %d levels", MaxDepth)
			}
		case c == ']' || c == '}':
			depth--
		case c == '-' || c >= '0' && c <= '9':
			n := 1
			for i+n < len(p) && isNumber(p[i+n]) {
				n++
			}
			if !fitsFloat(p[i : i+n]) {
				return errors.New("has a number that is too large")
			}
			i += n
			continue
		}
		i++
	}
	return nil
}

// stringLength returns the length of the string that valid JSON begins with.
func stringLength(p []byte) int {
	for i := 1; ; i++ {
		switch p[i] {
		case '"':
			return i + 1
		case '\\':
			i++
		}
	}
}

// CheckUnicode reports whether the strings in valid JSON are Unicode: no bytes that are not UTF-8, and no escape for half
// of a surrogate pair. encoding/json would put U+FFFD in the place of both.
func CheckUnicode(p []byte) error {
	if !utf8.Valid(p) {
		return errors.New("is not UTF-8")
	}
	for { // outside of strings there is no backslash
		i := bytes.IndexByte(p, '\\')
		switch {
		case i < 0:
			return nil
		case p[i+1] != 'u':
			p = p[i+2:]
			continue
		}
		const size = len(`\uxxxx`)
		first := escaped(p[i:])
		p = p[i+size:]
		switch {
		case first < 0xd800 || first > 0xdfff:
		case first < 0xdc00 && bytes.HasPrefix(p, []byte(`\u`)) && escaped(p)&^0x3ff == 0xdc00:
			p = p[size:]
		default:
			return errors.New("has half of a surrogate pair in a string")
		}
	}
}

// escaped returns what an escape \uxxxx stands for.
func escaped(p []byte) uint64 {
	u, _ := strconv.ParseUint(string(p[2:6]), 16, 16)
	return u
}

func isNumber(c byte) bool {
	return c >= '0' && c <= '9' || c == '.' || c == 'e' || c == 'E' || c == '+' || c == '-'
}

// fitsFloat reports whether a number is within the range of a float64, whatever its precision. A short one without an
// exponent is.
func fitsFloat(p []byte) bool {
	if len(p) < 300 && !bytes.ContainsAny(p, "eE") {
		return true
	}
	f, err := strconv.ParseFloat(string(p), 64)
	return err == nil && !math.IsInf(f, 0)
}

// What a byte of text takes besides itself: in an event stream, where each line begins with "data: ", and in a JSON
// string, where it is escaped.
const (
	eventStreamLine = len("data: ")
	controlEscape   = len(`\u0000`) - 1
	shortEscape     = len(`\"`) - 1
)

// encodedText returns how many bytes text takes in the format that takes most. Most text has nothing that takes more
// than it is, so it looks at eight bytes at once.
func encodedText(p []byte) int {
	lines, escapes := 0, 0
	count := func(p []byte) {
		for _, c := range p {
			switch {
			case c == '\n' || c == '\r':
				lines++
				escapes += shortEscape
			case c == '"' || c == '\\':
				escapes += shortEscape
			case c < ' ':
				escapes += controlEscape
			}
		}
	}
	n := len(p)
	for ; len(p) >= 8; p = p[8:] {
		const ones = 0x0101010101010101
		w := binary.LittleEndian.Uint64(p)
		quote, slash := w^'"'*ones, w^'\\'*ones
		// A byte's highest bit is set where it is less than a space, or, in the other two, zero.
		if ((w-' '*ones)&^w|(quote-ones)&^quote|(slash-ones)&^slash)&(0x80*ones) != 0 {
			count(p[:8])
		}
	}
	count(p)
	return n + max(eventStreamLine*lines, escapes)
}
