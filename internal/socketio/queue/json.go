package queue

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"unicode/utf8"
)

// maxDepth is how deep an argument of an event may be nested, and the array of several. The hub accepts no more in a
// message (see checkJSON there), because some parsers of its other clients do not.
const maxDepth = 60

var (
	errSyntax     = errors.New("not valid JSON")
	errUTF8       = errors.New("not valid UTF-8")
	errDepth      = fmt.Errorf("more than %d levels of arrays and objects", maxDepth)
	errNotFinite  = errors.New("NaN or Infinity, which JSON does not have: send null or a string")
	errTooLarge   = errors.New("a number beyond the range of a float64")
	errHalfOfPair = errors.New("half of a surrogate pair in a string")
)

// value is a JSON value as it was received, without the white space around it. The zero value stands for one that is
// missing.
type value struct {
	raw []byte
	n   int // how many elements, of an array
}

func (v value) isMissing() bool { return len(v.raw) == 0 }
func (v value) isNull() bool    { return v.isMissing() || v.raw[0] == 'n' }
func (v value) isArray() bool   { return !v.isMissing() && v.raw[0] == '[' }
func (v value) isString() bool  { return !v.isMissing() && v.raw[0] == '"' }
func (v value) isTrue() bool    { return !v.isMissing() && v.raw[0] == 't' }

// elements returns what is between an array's brackets.
func (v value) elements() []byte { return bytes.Trim(v.raw[1:len(v.raw)-1], " \t\r\n") }

// isInteger reports whether the value is a number without fraction and exponent.
func (v value) isInteger() bool {
	if v.isMissing() || v.raw[0] != '-' && !isDigit(v.raw[0]) {
		return false
	}
	return !bytes.ContainsAny(v.raw, ".eE")
}

// text returns the string that the value is.
func (v value) text() (string, error) {
	if !v.isString() {
		return "", errors.New("not a string")
	}
	return unquote(v.raw)
}

// unquote returns what a valid JSON string stands for.
func unquote(raw []byte) (string, error) {
	p, err := unquoted(raw)
	return string(p), err
}

// unquoted is unquote without a copy, if the string has no escapes. Keys have none, and need not be kept.
func unquoted(raw []byte) ([]byte, error) {
	if bytes.IndexByte(raw, '\\') < 0 {
		return raw[1 : len(raw)-1], nil
	}
	var s string
	err := json.Unmarshal(raw, &s)
	return []byte(s), err
}

// jsonReader reads JSON. It accepts what the hub accepts: see checkJSON there. It is our own because it has to find the
// values as well, and most messages pass it.
type jsonReader struct {
	p []byte // UTF-8
	i int
	n int // the elements or members of the array or object that was read last
}

// object calls each for the members of a JSON object, which is all that p has. A key that comes twice is passed twice:
// the last one counts, as in Python and JavaScript.
func object(p []byte, each func(key []byte, v value)) error {
	if !utf8.Valid(p) {
		return errUTF8
	}
	r := jsonReader{p: p}
	if r.next() != '{' {
		return errors.New("not a JSON object")
	}
	err := r.members(func(key []byte, depth int) error {
		name, err := unquoted(key)
		if err != nil {
			return errSyntax
		}
		v, err := r.value(depth)
		if err != nil {
			return fmt.Errorf("%s: %w", clip(string(name)), err)
		}
		each(name, v)
		return nil
	}, maxDepth+1)
	if err != nil {
		return err
	}
	if r.next() != 0 || r.i < len(p) {
		return errSyntax
	}
	return nil
}

// array calls each for the elements of an array that is valid: object has read it before. It would find the end of one
// that is not, too, because the reader refuses to read a value there.
func array(v value, each func(v value) error) error {
	r := jsonReader{p: v.raw, i: 1}
	for c := r.next(); c != ']'; c = r.next() {
		if c == ',' {
			r.i++
		}
		element, err := r.value(maxDepth)
		if err != nil {
			return err
		}
		if err := each(element); err != nil {
			return err
		}
	}
	return nil
}

// next passes over white space and returns the byte after it, or 0 at the end.
func (r *jsonReader) next() byte {
	for ; r.i < len(r.p); r.i++ {
		if c := r.p[r.i]; c > ' ' || c != ' ' && c != '\n' && c != '\r' && c != '\t' {
			return c
		}
	}
	return 0
}

// value reads a value that has at most this many levels.
func (r *jsonReader) value(depth int) (value, error) {
	r.next()
	from := r.i
	if err := r.skip(depth); err != nil {
		return value{}, err
	}
	v := value{raw: r.p[from:r.i]}
	if v.raw[0] == '[' {
		v.n = r.n // the outer array ends last, so this is its own
	}
	return v, nil
}

// skip reads a value that has at most this many levels. The depth bounds the recursion too.
func (r *jsonReader) skip(depth int) error {
	switch c := r.next(); {
	case c == '"':
		return r.text()
	case c == '{':
		return r.members(func(_ []byte, depth int) error { return r.skip(depth) }, depth)
	case c == '[':
		return r.array(depth)
	case c == '-' || isDigit(c):
		return r.number()
	}
	for _, literal := range [...]string{"true", "false", "null"} {
		if r.literal(literal) {
			return nil
		}
	}
	// Python writes these unless it is told not to (json.dumps, allow_nan).
	if r.literal("NaN") || r.literal("Infinity") {
		return errNotFinite
	}
	return errSyntax
}

// literal reads s, if the reader is at it. What follows has to be checked by the caller, who expects a comma or an end.
func (r *jsonReader) literal(s string) bool {
	if len(r.p)-r.i < len(s) || string(r.p[r.i:r.i+len(s)]) != s {
		return false
	}
	r.i += len(s)
	return true
}

// array reads an array.
func (r *jsonReader) array(depth int) error {
	if depth == 0 {
		return errDepth
	}
	r.i++
	n := 0
	if r.next() != ']' {
		for {
			if err := r.skip(depth - 1); err != nil {
				return err
			}
			n++
			if r.next() != ',' {
				break
			}
			r.i++
		}
	}
	if r.next() != ']' {
		return errSyntax
	}
	r.i++
	r.n = n
	return nil
}

// members reads an object. It calls each after each key, to read the value. The key is passed as it is written: with its
// quotes and its escapes.
func (r *jsonReader) members(each func(key []byte, depth int) error, depth int) error {
	if depth == 0 {
		return errDepth
	}
	r.i++
	if r.next() == '}' {
		r.i++
		return nil
	}
	for {
		if r.next() != '"' {
			return errSyntax
		}
		from := r.i
		if err := r.text(); err != nil {
			return err
		}
		key := r.p[from:r.i]
		if r.next() != ':' {
			return errSyntax
		}
		r.i++
		if err := each(key, depth-1); err != nil {
			return err
		}
		switch r.next() {
		case '}':
			r.i++
			return nil
		case ',':
			r.i++
		default:
			return errSyntax
		}
	}
}

// text reads a string.
func (r *jsonReader) text() error {
	for r.i++; r.i < len(r.p); r.i++ {
		switch c := r.p[r.i]; {
		case c == '"':
			r.i++
			return nil
		// Control characters have to be escaped (RFC 8259, section 7).
		case c < ' ':
			return errSyntax
		case c == '\\':
			if err := r.escape(); err != nil {
				return err
			}
		}
	}
	return errSyntax
}

// escape reads an escape, or two of them that are a surrogate pair, up to its last byte.
func (r *jsonReader) escape() error {
	r.i++
	if r.i >= len(r.p) {
		return errSyntax
	}
	if r.p[r.i] != 'u' {
		if bytes.IndexByte([]byte(`"\/bfnrt`), r.p[r.i]) < 0 {
			return errSyntax
		}
		return nil
	}
	first, ok := r.codeUnit()
	switch {
	case !ok:
		return errSyntax
	// The first of a surrogate pair is D800 to DBFF, the second DC00 to DFFF (RFC 8259, section 7).
	case first < 0xd800 || first > 0xdfff:
		return nil
	case first < 0xdc00 && bytes.HasPrefix(r.p[r.i+1:], []byte(`\u`)):
		r.i += 2
		if second, ok := r.codeUnit(); ok && second >= 0xdc00 && second <= 0xdfff {
			return nil
		}
	}
	return errHalfOfPair
}

// codeUnit reads the four digits after the u at which the reader is, up to the last.
func (r *jsonReader) codeUnit() (uint64, bool) {
	if len(r.p)-r.i < 5 {
		return 0, false
	}
	u, err := strconv.ParseUint(string(r.p[r.i+1:r.i+5]), 16, 16)
	r.i += 4
	return u, err == nil
}

// number reads a number.
func (r *jsonReader) number() error {
	from := r.i
	if r.p[r.i] == '-' {
		r.i++
		if r.literal("Infinity") {
			return errNotFinite
		}
	}
	// No digit follows a zero (RFC 8259, section 6). If one does, the number ends here, and what follows is an error.
	if !r.literal("0") && !r.digits() {
		return errSyntax
	}
	if r.literal(".") && !r.digits() {
		return errSyntax
	}
	exponent := r.literal("e") || r.literal("E")
	if exponent {
		if !r.literal("+") {
			r.literal("-")
		}
		if !r.digits() {
			return errSyntax
		}
	}
	// Below 300 digits without an exponent, it is within the range.
	if exponent || r.i-from > 300 {
		f, err := strconv.ParseFloat(string(r.p[from:r.i]), 64)
		if err != nil || math.IsInf(f, 0) {
			return errTooLarge
		}
	}
	return nil
}

// digits reads digits, and reports whether there is one.
func (r *jsonReader) digits() bool {
	from := r.i
	for r.i < len(r.p) && isDigit(r.p[r.i]) {
		r.i++
	}
	return r.i > from
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }
