package hub

import (
	"errors"
	"fmt"
	"unicode"
	"unicode/utf8"
)

// MaxName is the length in bytes of the longest name of a channel or an event.
const MaxName = 255

// CheckName returns what is wrong with the name of a channel or an event, if anything.
func CheckName(s string) error {
	switch {
	case s == "":
		return errors.New("is empty")
	case len(s) > MaxName:
		return fmt.Errorf("has %d bytes, more than %d", len(s), MaxName)
	case !utf8.ValidString(s):
		return errors.New("is not UTF-8")
	}
	for _, r := range s {
		if unicode.IsControl(r) {
			return errors.New("has a control character")
		}
	}
	return nil
}
