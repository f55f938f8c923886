package wire

import "github.com/caddy-broadcast/caddy-broadcast/internal/hub"

// codes are the close codes of the hub's reasons (RFC 6455, section 7.4.1, and IANA's registry). A client is not told
// of ReasonSilent and ReasonLost, because it cannot be.
var codes = [...]uint16{
	hub.ReasonClient:      1000,
	hub.ReasonSlow:        1013, // try again later
	hub.ReasonSilent:      1001,
	hub.ReasonLost:        1001,
	hub.ReasonPolicy:      1008,
	hub.ReasonTooBig:      1009,
	hub.ReasonProtocol:    1002,
	hub.ReasonUnsupported: 1003,
	hub.ReasonInvalid:     1007,
	hub.ReasonRestart:     1012, // service restart
	hub.ReasonMemory:      1013,
}

// Code returns the close code for a reason.
func Code(why hub.Reason) uint16 { return codes[why] }

// Reason returns the reason for a close code that a reader of frames wants to close a connection with.
func Reason(code uint16) hub.Reason {
	for why, c := range codes {
		if c == code {
			return hub.Reason(why)
		}
	}
	return hub.ReasonProtocol
}
