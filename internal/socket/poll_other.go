//go:build !linux

package socket

// Poller exists only on Linux. Elsewhere each client has a goroutine.
type Poller struct{}

// NewPoller returns nil.
func NewPoller() *Poller { return nil }

// Close does nothing.
func (p *Poller) Close() {}

// Len returns 0.
func (p *Poller) Len() int { return 0 }

func (p *Poller) add(*Socket) bool { return false }

func (p *Poller) remove(*Socket) {}
