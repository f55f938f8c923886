package hub

import (
	"fmt"
	"unicode"
	"unicode/utf8"
)

// MaxName is the length in bytes of the longest name of a channel or an event.
// What is in a shared log has to keep to it too: see broker.Entry.
const MaxName = 255

// CheckName returns an error if a name is not valid: of a channel, an event, a user or a key. The error begins with
// what, which says whose name it is.
func CheckName(what, s string) error {
	switch {
	case s == "":
		return fmt.Errorf("%s is empty", what)
	case len(s) > MaxName:
		return fmt.Errorf("%s has %d bytes, more than %d", what, len(s), MaxName)
	case !utf8.ValidString(s):
		return fmt.Errorf("%s is not UTF-8", what)
	}
	for _, r := range s {
		if unicode.IsControl(r) {
			return fmt.Errorf("%s has a control character", what)
		}
	}
	return nil
}
