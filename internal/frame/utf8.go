package frame

import "unicode/utf8"

// partialRune checks text that comes in pieces, so that invalid UTF-8 is known at its first wrong byte. It holds the
// bytes of a character that began in the last piece and did not end there.
type partialRune struct {
	bytes [utf8.UTFMax]byte
	n     uint8
}

// valid reports whether the next piece can belong to UTF-8, and for the last one whether the whole text is.
func (r *partialRune) valid(piece []byte, last bool) bool {
	for r.n > 0 && len(piece) > 0 {
		r.bytes[r.n] = piece[0]
		r.n++
		piece = piece[1:]
		if begun := r.bytes[:r.n]; utf8.FullRune(begun) { // it is complete, or wrong already
			if !utf8.Valid(begun) {
				return false
			}
			r.n = 0
		}
	}
	// Only the last bytes can be an incomplete character: find where it would start.
	for i := 1; i < utf8.UTFMax && i <= len(piece) && !last; i++ {
		tail := piece[len(piece)-i:]
		if utf8.RuneStart(tail[0]) {
			if !utf8.FullRune(tail) {
				r.n = uint8(copy(r.bytes[:], tail))
				piece = piece[:len(piece)-i]
			}
			break
		}
	}
	return utf8.Valid(piece) && !(last && r.n > 0)
}
