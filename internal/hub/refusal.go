package hub

// Refusal is a limit that a connection or a message was over.
type Refusal uint8

// Refusals.
const (
	RefusedConnections Refusal = iota // Options.MaxConnections
	RefusedRoute                      // Subscriber.MaxConnections
	RefusedAddress                    // Subscriber.MaxPerRemote
	RefusedChannels                   // Options.MaxChannels
	RefusedMemory                     // Options.MaxMemory: a connection or a message
	RefusedFull                       // ErrFull
	RefusedRate                       // how fast a client may publish
	RefusedOrigin                     // where a page may come from
	refusals
)

func (r Refusal) String() string {
	return [...]string{"connections", "route", "address", "channels", "memory", "full", "rate", "origin"}[r]
}

// Refused counts what the hub does not refuse itself.
func (h *Hub) Refused(r Refusal) { h.refused[r].Add(1) }

func (h *Hub) refuse(r Refusal, err error) error {
	h.Refused(r)
	return err
}
