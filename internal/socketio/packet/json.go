package packet

import (
	"bytes"
	"encoding/json"
)

// place is where an attachment belongs: the placeholder, as an index and an end in what is read.
type place struct{ start, end, num int }

// reader reads JSON (RFC 8259). It is UTF-8. It is our own because one pass over a packet has to check the syntax, to bound
// the depth, to cut off the first element, and to find the placeholders. encoding/json takes three.
type reader struct {
	p []byte
	i int // where it is

	attachments int                   // how many the packet has; without any, placeholders are objects like others
	places      [MaxAttachments]place // of those found, in their order
	found       int

	half bool // a string has half of a surrogate pair, which is not Unicode
}

// space passes over white space and returns the byte after it, or 0 at the end.
func (r *reader) space() byte {
	for ; r.i < len(r.p); r.i++ {
		switch c := r.p[r.i]; c {
		case ' ', '\n', '\r', '\t':
		default:
			return c
		}
	}
	return 0
}

// value reads a value that has at most this many levels, and reports whether it is valid.
func (r *reader) value(depth int) bool {
	switch c := r.space(); {
	case c == '"':
		_, ok := r.text()
		return ok
	case c == '{':
		return depth > 0 && r.object(depth-1)
	case c == '[':
		return depth > 0 && r.array(depth-1)
	case c == 't':
		return r.literal("true")
	case c == 'f':
		return r.literal("false")
	case c == 'n':
		return r.literal("null")
	}
	return r.number()
}

func (r *reader) literal(s string) bool {
	if !bytes.HasPrefix(r.p[r.i:], []byte(s)) {
		return false
	}
	r.i += len(s)
	return true
}

// array reads an array.
func (r *reader) array(depth int) bool {
	r.i++
	if r.space() == ']' {
		r.i++
		return true
	}
	for r.value(depth) {
		switch r.space() {
		case ']':
			r.i++
			return true
		case ',':
			r.i++
		default:
			return false
		}
	}
	return false
}

// member is what an object has to do with attachments. The members of a placeholder are _placeholder, which is true, and
// num.
type member uint8

const (
	otherMember member = iota
	placeholderMember
	numMember
)

// object reads an object. One with a member named _placeholder has to be exactly what encoders make, if the packet has
// attachments: {"_placeholder":true,"num":0}. The npm package takes any number of further members, and repeated ones, of
// which the last counts; other parsers take the first, or other values than true for a yes. A packet must mean the same
// to all of them.
func (r *reader) object(depth int) bool {
	start := r.i
	r.i++
	if r.space() == '}' {
		r.i++
		return true
	}
	placeholder, num, members := false, -1, 0
	for {
		kind, ok := r.key()
		if !ok {
			return false
		}
		members++
		r.space()
		from := r.i
		if !r.value(depth) {
			return false
		}
		switch kind {
		case placeholderMember:
			placeholder = true
			if string(r.p[from:r.i]) != "true" {
				return false
			}
		case numMember:
			num = r.index(r.p[from:r.i])
		}
		switch r.space() {
		case '}':
			r.i++
			return !placeholder || members == 2 && r.place(start, num)
		case ',':
			r.i++
		default:
			return false
		}
	}
}

// key reads the key of a member and the colon.
func (r *reader) key() (kind member, ok bool) {
	if r.space() != '"' {
		return 0, false
	}
	key, ok := r.text()
	if !ok || r.space() != ':' {
		return 0, false
	}
	r.i++
	if r.attachments == 0 {
		return otherMember, true
	}
	switch name := key[1 : len(key)-1]; {
	case is(name, "_placeholder"):
		return placeholderMember, true
	case is(name, "num"):
		return numMember, true
	}
	return otherMember, true
}

// is reports whether a string without its quotes stands for letters of ASCII, some of which may be escaped: "\u005fplaceholder" is
// the same key.
func is(raw []byte, letters string) bool {
	for i := range len(letters) {
		c := letters[i]
		if u, ok := codeUnit(raw); ok && u == uint16(c) {
			raw = raw[len(`\uxxxx`):]
		} else if len(raw) > 0 && raw[0] == c {
			raw = raw[1:]
		} else {
			return false
		}
	}
	return len(raw) == 0
}

// index returns the number of an attachment, or -1.
func (r *reader) index(p []byte) int {
	if len(p) != 1 || !isDigit(p[0]) || int(p[0]-'0') >= r.attachments {
		return -1 // MaxAttachments is ten, so that they have one digit
	}
	return int(p[0] - '0')
}

// place notes a placeholder. Each attachment has one: encoders number them as they find them. One that had many would
// become many times its size where a client gets it in base64.
func (r *reader) place(start, num int) bool {
	if num < 0 || r.found == r.attachments {
		return false
	}
	for _, other := range r.places[:r.found] {
		if other.num == num {
			return false
		}
	}
	r.places[r.found] = place{start, r.i, num}
	r.found++
	return true
}

// text reads a string, and returns it with its quotes.
func (r *reader) text() (quoted []byte, ok bool) {
	p, start := r.p, r.i
	for i := start + 1; i < len(p); i++ {
		switch c := p[i]; {
		case c == '"':
			r.i = i + 1
			return p[start:r.i], true
		case c < ' ': // has to be escaped (RFC 8259, section 7)
			return nil, false
		case c == '\\':
			n := r.escape(p[i:])
			if n == 0 {
				return nil, false
			}
			i += n - 1
		}
	}
	return nil, false
}

// escape returns the length of the escape that p begins with, or of two of them that are a surrogate pair; 0 if it is not
// valid.
func (r *reader) escape(p []byte) int {
	if len(p) < 2 {
		return 0
	}
	if p[1] != 'u' {
		if bytes.IndexByte([]byte(`"\/bfnrt`), p[1]) < 0 {
			return 0
		}
		return 2
	}
	const size = len(`\uxxxx`)
	first, ok := codeUnit(p)
	if !ok {
		return 0
	}
	// Surrogates are D800 to DFFF. The first of a pair is below DC00, and the second is not (RFC 8259, sections 7 and 8.2).
	if first < 0xd800 || first > 0xdfff {
		return size
	}
	if second, ok := codeUnit(p[size:]); ok && first < 0xdc00 && second >= 0xdc00 && second <= 0xdfff {
		return 2 * size
	}
	r.half = true
	return size
}

// codeUnit returns what the escape \uxxxx stands for that p begins with, if it does.
func codeUnit(p []byte) (u uint16, ok bool) {
	if len(p) < 6 || p[0] != '\\' || p[1] != 'u' {
		return 0, false
	}
	for _, c := range p[2:6] {
		switch {
		case isDigit(c):
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		u = u<<4 | uint16(c)
	}
	return u, true
}

// number reads a number.
func (r *reader) number() bool {
	if r.i < len(r.p) && r.p[r.i] == '-' {
		r.i++
	}
	// No digit follows a zero. If one does, the number ends here, and what follows it is an error.
	if r.i < len(r.p) && r.p[r.i] == '0' {
		r.i++
	} else if !r.digits() {
		return false
	}
	if r.i < len(r.p) && r.p[r.i] == '.' {
		if r.i++; !r.digits() {
			return false
		}
	}
	if r.i < len(r.p) && r.p[r.i]|0x20 == 'e' {
		if r.i++; r.i < len(r.p) && (r.p[r.i] == '+' || r.p[r.i] == '-') {
			r.i++
		}
		return r.digits()
	}
	return true
}

// digits passes over digits, and reports whether there is one.
func (r *reader) digits() bool {
	from := r.i
	for r.i < len(r.p) && isDigit(r.p[r.i]) {
		r.i++
	}
	return r.i > from
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

// members calls f with each member of a valid object: its key, without the quotes, and its value.
func members(object []byte, f func(key, value []byte)) {
	r := reader{p: object, i: 1}
	for r.space() == '"' {
		key, _ := r.text()
		r.space()
		r.i++ // the colon
		r.space()
		from := r.i
		if !r.value(maxDepth) {
			return
		}
		f(key[1:len(key)-1], r.p[from:r.i])
		r.space()
		r.i++ // the comma, or the end
	}
}

// unquote returns the string that a valid JSON string stands for.
func unquote(quoted []byte) string {
	if bytes.IndexByte(quoted, '\\') < 0 {
		return string(quoted[1 : len(quoted)-1])
	}
	var s string
	if json.Unmarshal(quoted, &s) != nil { // cannot be
		return ""
	}
	return s
}
