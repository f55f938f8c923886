package hub

// MaxJoined is how many channels a connection can be on at once.
const MaxJoined = 1000

// Limit is a limit that a connection or a message exceeded. The HTTP status for it is in internal/publish (Failed) for
// messages, and in accept.go of internal/websocket and internal/eventstream for connections.
type Limit uint8

// Limits.
const (
	LimitConnections Limit = iota // Config.MaxConnections
	LimitRoute                    // Subscriber.MaxConnections
	LimitAddress                  // Subscriber.MaxPerRemote
	LimitChannels                 // Config.MaxChannels
	LimitMemory                   // Config.MaxMemory: a connection or a message
	LimitFull                     // ErrFull
	LimitRate                     // how fast a client may publish
	LimitOrigin                   // where a page may come from
	limits
)

func (r Limit) String() string {
	return [...]string{"connections", "route", "address", "channels", "memory", "full", "rate", "origin"}[r]
}

// CountRejected counts something that was rejected because of a limit. The hub counts what it rejects itself.
func (h *Hub) CountRejected(r Limit) { h.rejected[r].Add(1) }

// reject counts what the hub itself rejects, and returns err.
func (h *Hub) reject(r Limit, err error) error {
	h.CountRejected(r)
	return err
}
