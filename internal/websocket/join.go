package websocket

import (
	"fmt"
	"slices"
	"strings"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/wire"
)

// Grant returns a client's channels with those that it asks for besides and may join, and the errors that say which it
// may not.
func Grant(channels, asked []string, may func(channel string) bool) (granted []string, errs []byte) {
	granted = slices.Clip(channels)
	if len(asked) > hub.MaxJoined { // an answer to each would be long
		return granted, wire.AppendError(nil, nil, errLimit, hub.ErrJoinedTooMany.Error())
	}
	for _, name := range asked {
		switch err := hub.CheckName(name); {
		case err != nil:
			errs = wire.AppendError(errs, nil, errInvalid, fmt.Sprintf("the channel %v", err))
		case slices.Contains(granted, name):
		case may == nil || !may(name):
			errs = wire.AppendError(errs, nil, errForbidden, mayNotJoin(name))
		case len(granted) >= hub.MaxJoined:
			errs = wire.AppendError(errs, nil, errLimit, hub.ErrJoinedTooMany.Error())
		default:
			granted = append(granted, strings.Clone(name))
		}
	}
	return granted, errs
}

func mayNotJoin(channel string) string {
	return fmt.Sprintf("the channel %q may not be joined on this route", channel)
}

// JoinPattern names channels that clients may join: a * stands for any text.
type JoinPattern []string // what is between the *s

// ParseJoin reads a pattern.
func ParseJoin(s string) JoinPattern { return strings.Split(s, "*") }

// Expand returns the pattern with its placeholders expanded. What they stand for has no * but itself, so that nobody
// who can choose it can widen the pattern; and if it is empty, as the user who is not known, the pattern names nothing.
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

// Matches says whether the pattern names a channel.
func (p JoinPattern) Matches(channel string) bool {
	if len(p) < 2 {
		return len(p) == 1 && channel == p[0]
	}
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
