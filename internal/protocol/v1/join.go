package v1

import (
	"fmt"
	"slices"
	"strings"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
)

// grant returns a client's channels together with those that it asked to join and may join, and errors for the others.
//
// A handshake does not fail for a channel that is not granted, because a page could not see why: browsers hide the response
// to a failed handshake. The errors come with the hello instead.
func grant(channels, asked []string, may func(channel string) bool) (granted []string, errs []byte) {
	granted = slices.Clip(channels)
	if len(asked) > hub.MaxJoined { // an error for each would be a long frame
		return granted, appendError(nil, nil, codeLimit, hub.ErrJoinedTooMany.Error())
	}
	for _, name := range asked {
		switch err := hub.CheckName("the channel", name); {
		case err != nil:
			errs = appendError(errs, nil, codeInvalid, err.Error())
		case slices.Contains(granted, name):
		case may == nil || !may(name):
			errs = appendError(errs, nil, codeForbidden, mayNotJoin(name))
		case len(granted) >= hub.MaxJoined:
			errs = appendError(errs, nil, codeLimit, hub.ErrJoinedTooMany.Error())
		default:
			granted = append(granted, strings.Clone(name)) // or the connection would hold the whole address
		}
	}
	return granted, errs
}

// mayNotJoin is the same for a join in the handshake and later.
func mayNotJoin(channel string) string {
	return fmt.Sprintf("the channel %q may not be joined on this route", channel)
}

// JoinPattern matches channels that clients may join: a * stands for any text.
type JoinPattern []string // what is between the *s

// ParseJoinPattern parses a pattern.
func ParseJoinPattern(s string) JoinPattern { return strings.Split(s, "*") }

// Expand returns the pattern with its placeholders expanded. A * in a placeholder's value matches only itself, so that a
// client that can choose the value cannot widen the pattern. If expanding fails, as it should for an empty value such as
// the name of an unknown user, the pattern matches nothing.
func (p JoinPattern) Expand(expand func(string) (string, error)) JoinPattern {
	expanded := make(JoinPattern, len(p))
	for i, piece := range p {
		var err error
		if expanded[i], err = expand(piece); err != nil {
			return nil
		}
	}
	return expanded
}

// Matches reports whether the pattern matches a channel.
func (p JoinPattern) Matches(channel string) bool {
	if len(p) < 2 {
		return len(p) == 1 && channel == p[0]
	}
	// What is between the *s has to be in the channel in this order. Taking the first place for each piece is enough: a
	// later one would only leave less for those that follow. So the time is linear, whatever a client asks for.
	first, last := p[0], p[len(p)-1]
	if len(channel) < len(first)+len(last) || !strings.HasPrefix(channel, first) || !strings.HasSuffix(channel, last) {
		return false
	}
	rest := channel[len(first) : len(channel)-len(last)]
	for _, piece := range p[1 : len(p)-1] {
		i := strings.Index(rest, piece)
		if i < 0 {
			return false
		}
		rest = rest[i+len(piece):]
	}
	return true
}
