package queue

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/caddy-broadcast/caddy-broadcast/internal/protocol"
)

var errTruncated = errors.New("truncated")

// kind is what a format of msgpack stands for.
type kind uint8

const (
	kindNil kind = iota
	kindBool
	kindUint
	kindInt
	kindFloat
	kindString
	kindBytes
	kindArray
	kindMap
	kindExt
)

// msgpackReader transcodes msgpack (github.com/msgpack/msgpack, spec.md) to JSON. It does not build values in between: they
// would lose the order of keys, and take many times the memory of the payload.
type msgpackReader struct {
	p     []byte // what is left
	limit int    // most bytes of JSON and attachments

	wantsAttachments bool
	attachments      [][]byte
	attached         int // bytes in attachments
}

// token is the head of a value. The contents of strings, bytes and extensions belong to it. Those of arrays and maps
// follow it.
type token struct {
	kind kind
	n    uint64 // the number, the length of an array or a map, or the type of an extension
	p    []byte // the contents
}

// take takes n bytes.
func (m *msgpackReader) take(n uint64) ([]byte, error) {
	if n > uint64(len(m.p)) {
		return nil, errTruncated
	}
	p := m.p[:n]
	m.p = m.p[n:]
	return p, nil
}

// number takes a number of this many bytes, in network order.
func (m *msgpackReader) number(size int) (n uint64, err error) {
	p, err := m.take(uint64(size))
	for _, c := range p {
		n = n<<8 | uint64(c)
	}
	return n, err
}

// next reads a head.
func (m *msgpackReader) next() (token, error) {
	p, err := m.take(1)
	if err != nil {
		return token{}, err
	}
	switch c := p[0]; {
	case c < 0x80:
		return token{kind: kindUint, n: uint64(c)}, nil
	case c < 0x90:
		return m.sized(kindMap, uint64(c&0xf))
	case c < 0xa0:
		return m.sized(kindArray, uint64(c&0xf))
	case c < 0xc0:
		return m.sized(kindString, uint64(c&0x1f))
	case c >= 0xe0: // the byte is the number, in two's complement
		return token{kind: kindInt, n: uint64(int64(int8(c)))}, nil
	default:
		return m.format(c)
	}
}

// format reads the rest of a head that begins with one of the bytes c0 to df.
func (m *msgpackReader) format(c byte) (token, error) {
	lengthOf := func(k kind, size int) (token, error) {
		n, err := m.number(size)
		if err != nil {
			return token{}, err
		}
		return m.sized(k, n)
	}
	// Formats that differ in the size of a number or a length follow one another, each with twice the size.
	switch {
	case c == 0xc0:
		return token{kind: kindNil}, nil
	case c == 0xc2 || c == 0xc3:
		return token{kind: kindBool, n: uint64(c & 1)}, nil
	case c >= 0xc4 && c <= 0xc6:
		return lengthOf(kindBytes, 1<<(c-0xc4))
	case c >= 0xc7 && c <= 0xc9:
		return lengthOf(kindExt, 1<<(c-0xc7))
	case c == 0xca:
		n, err := m.number(4)
		return token{kind: kindFloat, n: math.Float64bits(float64(math.Float32frombits(uint32(n))))}, err
	case c == 0xcb:
		n, err := m.number(8)
		return token{kind: kindFloat, n: n}, err
	case c >= 0xcc && c <= 0xcf:
		n, err := m.number(1 << (c - 0xcc))
		return token{kind: kindUint, n: n}, err
	case c >= 0xd0 && c <= 0xd3:
		size := 1 << (c - 0xd0)
		n, err := m.number(size)
		// Shifted up and down again, the sign fills the bytes above.
		shift := 64 - 8*size
		return token{kind: kindInt, n: uint64(int64(n<<shift) >> shift)}, err
	case c >= 0xd4 && c <= 0xd8:
		return m.sized(kindExt, 1<<(c-0xd4))
	case c >= 0xd9 && c <= 0xdb:
		return lengthOf(kindString, 1<<(c-0xd9))
	case c == 0xdc || c == 0xdd:
		return lengthOf(kindArray, 2<<(c-0xdc))
	case c == 0xde || c == 0xdf:
		return lengthOf(kindMap, 2<<(c-0xde))
	}
	return token{}, errors.New("the byte c1, which msgpack does not use")
}

// sized completes a head that has a length. It checks the length against what is left before anything is taken for it.
// Each element of an array takes a byte or more, and each of a map two.
func (m *msgpackReader) sized(k kind, n uint64) (t token, err error) {
	t = token{kind: k, n: n}
	switch k {
	case kindArray, kindMap:
		if n > uint64(len(m.p)) {
			err = errTruncated
		}
	case kindExt:
		if t.n, err = m.number(1); err == nil {
			t.p, err = m.take(n)
		}
	default:
		t.p, err = m.take(n)
	}
	return t, err
}

// header reads the head of an array or a map, and returns its length.
func (m *msgpackReader) header(want kind, what string) (int, error) {
	t, err := m.next()
	if err != nil {
		return 0, err
	}
	if t.kind != want {
		return 0, fmt.Errorf("%s is not %s", what, map[kind]string{kindArray: "an array", kindMap: "a map"}[want])
	}
	return int(t.n), nil // sized checked that
}

// mapOf reads a map. It calls each after each key, to read the value.
func (m *msgpackReader) mapOf(what string, each func(key []byte) error) error {
	n, err := m.header(kindMap, what)
	if err != nil {
		return err
	}
	for range n {
		t, err := m.next()
		if err != nil {
			return err
		}
		if t.kind != kindString {
			return errors.New("a key is not a string")
		}
		if err := each(t.p); err != nil {
			return err
		}
	}
	return nil
}

// transcode appends a value that has at most this many levels as JSON. The depth bounds the recursion too.
func (m *msgpackReader) transcode(dst []byte, depth int) ([]byte, error) {
	t, err := m.next()
	if err != nil {
		return nil, err
	}
	if room := m.limit - m.attached - len(dst); len(t.p) > room || t.kind == kindString && !fitsJSON(t.p, room) {
		return nil, errLimit(m.limit)
	}
	switch t.kind {
	case kindArray, kindMap:
		if depth == 0 {
			return nil, errDepth
		}
		dst, err = m.elements(dst, t, depth-1)
	case kindBytes:
		dst, err = m.attach(dst, t.p)
	case kindExt:
		dst, err = appendExt(dst, t)
	default:
		dst = appendScalar(dst, t)
	}
	if err == nil && len(dst)+m.attached > m.limit {
		err = errLimit(m.limit)
	}
	return dst, err
}

// elements appends those of an array or a map.
func (m *msgpackReader) elements(dst []byte, t token, depth int) (_ []byte, err error) {
	brackets := "[]"
	if t.kind == kindMap {
		brackets = "{}"
	}
	dst = append(dst, brackets[0])
	for i := range t.n {
		if i > 0 {
			dst = append(dst, ',')
		}
		if t.kind == kindMap {
			key, err := m.next()
			if err != nil {
				return nil, err
			}
			if dst, err = appendKey(dst, key); err != nil {
				return nil, err
			}
		}
		if dst, err = m.transcode(dst, depth); err != nil {
			return nil, err
		}
	}
	return append(dst, brackets[1]), nil
}

// appendKey appends a key of a map. Integers become text, as in JavaScript.
func appendKey(dst []byte, t token) ([]byte, error) {
	switch t.kind {
	case kindString:
		dst = appendScalar(dst, t)
	case kindInt, kindUint:
		dst = append(appendScalar(append(dst, '"'), t), '"')
	default:
		return nil, errors.New("a key of a map is not a string")
	}
	return append(dst, ':'), nil
}

// attach makes bytes an attachment and appends its placeholder.
func (m *msgpackReader) attach(dst, p []byte) ([]byte, error) {
	if !m.wantsAttachments {
		return nil, errors.New("binary data outside the event's arguments")
	}
	if len(m.attachments) == maxAttachments {
		return nil, fmt.Errorf("more than %d attachments, which clients do not accept", maxAttachments)
	}
	m.attachments = append(m.attachments, append([]byte{}, p...)) // the payload's memory is the caller's
	m.attached += len(p)
	return appendPlaceholder(dst, len(m.attachments)-1), nil
}

// appendScalar appends what is neither nested nor binary.
func appendScalar(dst []byte, t token) []byte {
	switch t.kind {
	case kindBool:
		return strconv.AppendBool(dst, t.n == 1)
	case kindUint:
		return strconv.AppendUint(dst, t.n, 10)
	case kindInt:
		return strconv.AppendInt(dst, int64(t.n), 10)
	case kindFloat:
		if f := math.Float64frombits(t.n); !math.IsNaN(f) && !math.IsInf(f, 0) {
			return strconv.AppendFloat(dst, f, 'g', -1, 64)
		}
	case kindString:
		if !utf8.Valid(t.p) { // half of a surrogate pair, which JavaScript allows in strings
			// notepack.io writes such a half as three bytes, which decoders replace.
			return protocol.AppendString(dst, strings.ToValidUTF8(string(t.p), "\ufffd"))
		}
		return protocol.AppendString(dst, t.p)
	}
	return append(dst, "null"...) // also for NaN and Infinity, as JSON.stringify does
}

// appendExt appends an extension: a time, or undefined as notepack.io wrote it before 3.0.
func appendExt(dst []byte, t token) ([]byte, error) {
	const timestamp = 0xff // -1
	switch {
	case t.n == 0 && len(t.p) == 1 && t.p[0] == 0:
		return append(dst, "null"...), nil
	case t.n == timestamp && len(t.p) == 4:
		return appendTime(dst, int64(binary.BigEndian.Uint32(t.p)), 0)
	case t.n == timestamp && len(t.p) == 8:
		n := binary.BigEndian.Uint64(t.p)
		return appendTime(dst, int64(n&(1<<34-1)), uint32(n>>34))
	case t.n == timestamp && len(t.p) == 12:
		return appendTime(dst, int64(binary.BigEndian.Uint64(t.p[4:])), binary.BigEndian.Uint32(t.p))
	}
	return nil, fmt.Errorf("an extension of type %d and %d bytes: only times are accepted", int8(t.n), len(t.p))
}

// appendTime appends a time as JavaScript's toISOString writes it (ECMAScript, "Date.prototype.toISOString"): years of other
// than four digits have a sign and six. JSON.stringify calls it, so clients of the reference receive the same.
func appendTime(dst []byte, seconds int64, nanoseconds uint32) ([]byte, error) {
	const most = 8_640_000_000_000 // seconds: ECMAScript, "Time Values and Time Range"
	if seconds < -most || seconds > most || nanoseconds >= 1e9 {
		return nil, errors.New("a time out of the range of JavaScript's")
	}
	t := time.Unix(seconds, int64(nanoseconds)).UTC()
	dst = append(dst, '"')
	if year := t.Year(); year >= 0 && year <= 9999 {
		dst = fmt.Appendf(dst, "%04d", year)
	} else {
		dst = fmt.Appendf(dst, "%+07d", year)
	}
	return append(t.AppendFormat(dst, "-01-02T15:04:05.000Z"), '"'), nil
}
