//go:build !linux

package websocket

// Poller is only on Linux: elsewhere each client has a goroutine.
type Poller struct{}

// NewPoller returns nil.
func NewPoller() *Poller { return nil }

// Close does nothing.
func (p *Poller) Close() {}

func (p *Poller) add(*session) bool { return false }

func (p *Poller) remove(*session) {}
