package pattern

import (
	"errors"
	"testing"
)

// TestMatches: a * stands for any text, none too, and everything else for itself.
func TestMatches(t *testing.T) {
	for _, c := range []struct {
		pattern, name string
		want          bool
	}{
		{"room", "room", true},
		{"room", "rooms", false},
		{"room:*", "room:", true},
		{"room:*", "room:a:b", true},
		{"room:*", "room", false},
		{"*", "", true},
		{"a*b*c", "abc", true},
		{"a*b*c", "a-b-b-c", true},
		{"a*b*c", "ac", false},
		{"ab*ba", "aba", false},
		{"*:mail", "user:ann:mail", true},
	} {
		if got := Parse(c.pattern).Matches(c.name); got != c.want {
			t.Errorf("%q matches %q: %v", c.pattern, c.name, got)
		}
	}
	if l := ParseList([]string{"a", "b*"}); !l.Matches("bc") || l.Matches("ac") || List(nil).Matches("") {
		t.Error("a list matches what one of its patterns does")
	}
}

// TestExpand: a * in the value of a placeholder is no wildcard, and a value that is missing matches nothing.
func TestExpand(t *testing.T) {
	l := ParseList([]string{"user:{user}:*"})
	expandTo := func(value string) List {
		return l.Expand(func(s string) (string, error) {
			if s != "user:{user}:" {
				return s, nil
			}
			if value == "" {
				return "", errors.New("empty")
			}
			return "user:" + value + ":", nil
		})
	}
	if e := expandTo("*"); e.Matches("user:ann:mail") || !e.Matches("user:*:mail") {
		t.Error("a value widens the pattern")
	}
	if e := expandTo(""); e.Matches("user::mail") || e.Matches("") {
		t.Error("a missing value matches")
	}
}
