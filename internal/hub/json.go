package hub

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strconv"
	"unicode/utf8"
)

// maxDepth is how deep arrays and objects may be nested in JSON. Some parsers stop at 64 levels unless they are configured
// otherwise (.NET's), and broadcast.v1 puts two around the data.
const maxDepth = 60

var (
	errNotJSON    = errors.New("is not JSON")
	errNotUTF8    = errors.New("is not UTF-8")
	errTooDeep    = fmt.Errorf("is JSON of more than %d levels", maxDepth)
	errTooLarge   = errors.New("has a number that is too large")
	errHalfOfPair = errors.New("has half of a surrogate pair in a string")
)

// checkJSON reports what is wrong with a JSON text, if anything. Besides the syntax (RFC 8259) it wants what common
// parsers insist on, most of which I-JSON (RFC 7493) wants too: Unicode, no number beyond the range of a float64, and no
// more than maxDepth levels. Objects that have a name twice pass.
//
// It is our own because it is on the way of every message: json.Valid takes two to three times as long, and says
// nothing of the rest.
func checkJSON(p []byte) error { return CheckJSON(p, maxDepth) }

// CheckJSON is checkJSON with another number of levels.
func CheckJSON(p []byte, levels int) error {
	if !utf8.Valid(p) {
		return errNotUTF8
	}
	r := jsonReader{p}
	if err := r.value(levels); err != nil {
		return err
	}
	if r.next() != 0 || len(r.p) > 0 {
		return errNotJSON
	}
	return nil
}

// jsonReader reads the JSON that is left. It is UTF-8.
type jsonReader struct{ p []byte }

// next passes over white space and returns the byte after it, or 0 at the end.
func (r *jsonReader) next() byte {
	for i, c := range r.p {
		if c > ' ' || c != ' ' && c != '\n' && c != '\r' && c != '\t' {
			r.p = r.p[i:]
			return c
		}
	}
	r.p = nil
	return 0
}

// value reads a value that has at most this many levels.
func (r *jsonReader) value(depth int) error {
	switch c := r.next(); {
	case c == '"':
		return r.text()
	case c == '{' || c == '[':
		// This bounds the recursion too.
		if depth == 0 {
			return errTooDeep
		}
		return r.values(depth-1, c == '{')
	case c == '-' || isDigit(c):
		return r.number()
	}
	for _, literal := range [...]string{"true", "false", "null"} {
		if len(r.p) >= len(literal) && string(r.p[:len(literal)]) == literal {
			r.p = r.p[len(literal):]
			return nil
		}
	}
	return errNotJSON
}

// values reads an object or an array.
func (r *jsonReader) values(depth int, object bool) error {
	end := byte(']')
	if object {
		end = '}'
	}
	r.p = r.p[1:]
	if r.next() == end {
		r.p = r.p[1:]
		return nil
	}
	for {
		if object {
			if r.next() != '"' {
				return errNotJSON
			}
			if err := r.text(); err != nil {
				return err
			}
			if r.next() != ':' {
				return errNotJSON
			}
			r.p = r.p[1:]
		}
		if err := r.value(depth); err != nil {
			return err
		}
		switch c := r.next(); c {
		case end:
			r.p = r.p[1:]
			return nil
		case ',':
			r.p = r.p[1:]
		default:
			return errNotJSON
		}
	}
}

// text reads a string.
func (r *jsonReader) text() error {
	p := r.p
	for i := 1; i < len(p); i++ {
		switch c := p[i]; {
		case c == '"':
			r.p = p[i+1:]
			return nil
		// Control characters have to be escaped (RFC 8259, section 7).
		case c < ' ':
			return errNotJSON
		case c == '\\':
			n, err := escape(p[i:])
			if err != nil {
				return err
			}
			i += n - 1
		}
	}
	return errNotJSON
}

// escape reads an escape, or two of them that are a surrogate pair, and returns how long that is.
func escape(p []byte) (n int, err error) {
	if len(p) < 2 {
		return 0, errNotJSON
	}
	if p[1] != 'u' {
		if bytes.IndexByte([]byte(`"\/bfnrt`), p[1]) < 0 {
			return 0, errNotJSON
		}
		return 2, nil
	}
	const size = len(`\uxxxx`)
	first, ok := codeUnit(p)
	switch {
	case !ok:
		return 0, errNotJSON
	// Surrogates are D800 to DFFF. The first of a pair is below DC00, and the second is not (RFC 8259, sections 7
	// and 8.2).
	case first < 0xd800 || first > 0xdfff:
		return size, nil
	case first < 0xdc00:
		if second, ok := codeUnit(p[size:]); ok && second >= 0xdc00 && second <= 0xdfff {
			return 2 * size, nil
		}
	}
	return 0, errHalfOfPair
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

// number reads a number. A short one without an exponent is within the range of a float64.
func (r *jsonReader) number() error {
	p := r.p
	i := 0
	digits := func() bool {
		from := i
		for i < len(p) && isDigit(p[i]) {
			i++
		}
		return i > from
	}
	if p[i] == '-' {
		i++
	}
	// No digit follows a zero (RFC 8259, section 6). If one does, the number ends here, and what follows it is an
	// error.
	if i < len(p) && p[i] == '0' {
		i++
	} else if !digits() {
		return errNotJSON
	}
	if i < len(p) && p[i] == '.' {
		if i++; !digits() {
			return errNotJSON
		}
	}
	exponent := i < len(p) && (p[i] == 'e' || p[i] == 'E')
	if exponent {
		if i++; i < len(p) && (p[i] == '+' || p[i] == '-') {
			i++
		}
		if !digits() {
			return errNotJSON
		}
	}
	// The range ends at about 1.8e308, so 300 digits are always in it.
	if exponent || i > 300 {
		if f, err := strconv.ParseFloat(string(p[:i]), 64); err != nil || math.IsInf(f, 0) {
			return errTooLarge
		}
	}
	r.p = p[i:]
	return nil
}

// isDigit reports whether c is an ASCII digit. JSON has no others (RFC 8259, section 6).
func isDigit(c byte) bool { return c >= '0' && c <= '9' }

// CheckUnicode reports whether the strings in valid JSON are Unicode: no bytes that are not UTF-8, and no escape for half
// of a surrogate pair. encoding/json would put U+FFFD in the place of both.
func CheckUnicode(p []byte) error {
	if !utf8.Valid(p) {
		return errNotUTF8
	}
	for { // outside of strings there is no backslash
		i := bytes.IndexByte(p, '\\')
		if i < 0 {
			return nil
		}
		n, err := escape(p[i:])
		if err != nil {
			return err
		}
		p = p[i+n:]
	}
}
