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
