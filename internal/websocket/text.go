package websocket

import "unicode/utf8"

// partialRune checks text that comes in parts, so that what is not UTF-8 is known at its first wrong byte. It holds the
// bytes of a character that the last part began and did not end.
type partialRune struct {
	bytes [utf8.UTFMax]byte
	n     uint8
}

// valid reports whether the next part can belong to UTF-8, and at the end whether the whole does.
func (r *partialRune) valid(part []byte, end bool) bool {
	for r.n > 0 && len(part) > 0 {
		r.bytes[r.n] = part[0]
		r.n++
		part = part[1:]
		if begun := r.bytes[:r.n]; utf8.FullRune(begun) { // it is whole, or wrong
			if !utf8.Valid(begun) {
				return false
			}
			r.n = 0
		}
	}
	for i := 1; i < utf8.UTFMax && i <= len(part) && !end; i++ {
		last := part[len(part)-i:]
		if utf8.RuneStart(last[0]) {
			if !utf8.FullRune(last) {
				r.n = uint8(copy(r.bytes[:], last))
				part = part[:len(part)-i]
			}
			break
		}
	}
	return utf8.Valid(part) && !(end && r.n > 0)
}
