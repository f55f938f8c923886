package hub

import "errors"

// Reason is why a connection ended. What the peer is told of it is up to the connection's Format: a WebSocket has a
// close code for it, an event stream only a time to reconnect.
type Reason uint8

// Reasons. Three of them count as one in the metrics ("protocol"), but WebSockets have a close code for each.
const (
	ReasonClient      Reason = iota // the client left
	ReasonSlow                      // its backlog was full, or it accepted no data in time
	ReasonSilent                    // it showed no life for two ping intervals
	ReasonLost                      // writing to it failed
	ReasonPolicy                    // it did what the route does not allow, or an administrator closed it
	ReasonTooBig                    // its message was too big
	ReasonProtocol                  // what it sent broke the protocol
	ReasonUnsupported               // it sent a kind of data that the protocol does not have
	ReasonInvalid                   // its data was not what it claimed to be, such as UTF-8
	ReasonRestart                   // the hub, or the configuration of its route, ended
	ReasonMemory                    // it held the most when the memory limit was reached
	ReasonUnavailable               // the hub could not follow the log that it shares with others
	ReasonExpired                   // its access has ended (Subscriber.Expires)
	reasons                         // how many there are
)

// String returns the name of the reason in metrics and events.
func (r Reason) String() string {
	return [...]string{"client", "slow", "silent", "lost", "policy", "too_big", "protocol", "protocol", "protocol", "restart", "memory", "unavailable", "expired"}[r]
}

// reasonForError returns why a connection ends whose flusher failed with err.
func reasonForError(err error) Reason {
	if errors.Is(err, ErrStuck) || errors.Is(err, ErrTimeout) {
		return ReasonSlow
	}
	return ReasonLost
}
