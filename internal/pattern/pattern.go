// Package pattern matches names of channels and namespaces, as options give them: `room:*`.
package pattern

import (
	"slices"
	"strings"
)

// List is patterns of which one has to match.
type List []Pattern

// ParseList parses patterns.
func ParseList(texts []string) List {
	l := make(List, len(texts))
	for i, text := range texts {
		l[i] = Parse(text)
	}
	return l
}

// Expand returns the patterns with their placeholders expanded: see Pattern.Expand.
func (l List) Expand(expand func(string) (string, error)) List {
	expanded := make(List, len(l))
	for i, p := range l {
		expanded[i] = p.Expand(expand)
	}
	return expanded
}

// Matches reports whether one of the patterns matches a name.
func (l List) Matches(name string) bool {
	return slices.ContainsFunc(l, func(p Pattern) bool { return p.Matches(name) })
}

// Pattern matches names: a * stands for any text.
type Pattern []string // what is between the *s

// Parse parses a pattern.
func Parse(s string) Pattern { return strings.Split(s, "*") }

// Expand returns the pattern with its placeholders expanded. A * in a placeholder's value matches only itself, so that a
// client that can choose the value cannot widen the pattern. If expanding fails, as it should for an empty value such as
// the name of an unknown user, the pattern matches nothing.
func (p Pattern) Expand(expand func(string) (string, error)) Pattern {
	expanded := make(Pattern, len(p))
	for i, piece := range p {
		var err error
		if expanded[i], err = expand(piece); err != nil {
			return nil
		}
	}
	return expanded
}

// Matches reports whether the pattern matches a name.
func (p Pattern) Matches(name string) bool {
	if len(p) < 2 {
		return len(p) == 1 && name == p[0]
	}
	// What is between the *s has to be in the name in this order. Taking the first place for each piece is enough: a
	// later one would only leave less for those that follow. So the time is linear, whatever a client asks for.
	first, last := p[0], p[len(p)-1]
	if len(name) < len(first)+len(last) || !strings.HasPrefix(name, first) || !strings.HasSuffix(name, last) {
		return false
	}
	rest := name[len(first) : len(name)-len(last)]
	for _, piece := range p[1 : len(p)-1] {
		i := strings.Index(rest, piece)
		if i < 0 {
			return false
		}
		rest = rest[i+len(piece):]
	}
	return true
}
