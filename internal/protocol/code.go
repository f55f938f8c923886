package protocol

import (
	"github.com/caddy-broadcast/caddy-broadcast/internal/frame"
	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
)

// codes are the close codes of the hub's reasons. A client is never told ReasonSilent and ReasonLost, because nothing
// can be sent to it any more.
var codes = [...]frame.Code{
	hub.ReasonClient:      frame.NormalClosure,
	hub.ReasonSlow:        frame.TryAgainLater,
	hub.ReasonSilent:      frame.GoingAway,
	hub.ReasonLost:        frame.GoingAway,
	hub.ReasonPolicy:      frame.PolicyViolation,
	hub.ReasonTooBig:      frame.MessageTooBig,
	hub.ReasonProtocol:    frame.ProtocolError,
	hub.ReasonUnsupported: frame.UnsupportedData,
	hub.ReasonInvalid:     frame.InvalidData,
	hub.ReasonRestart:     frame.ServiceRestart,
	hub.ReasonMemory:      frame.TryAgainLater,
	hub.ReasonUnavailable: frame.TryAgainLater,
	hub.ReasonExpired:     frame.AccessExpired,
}

// CloseCode returns the close code that tells a client the reason.
func CloseCode(why hub.Reason) frame.Code { return codes[why] }

// Reason returns the reason for which a client is closed with the code. Codes that no reason has count as a protocol
// error.
func Reason(code frame.Code) hub.Reason {
	for why, c := range codes {
		if c == code {
			return hub.Reason(why)
		}
	}
	return hub.ReasonProtocol
}
