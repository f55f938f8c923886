//go:build !linux

package socket

import (
	"errors"
	"syscall"
)

// Poller exists only on Linux. Elsewhere each client has a goroutine.
type Poller struct{}

// NewPoller returns nil.
func NewPoller() *Poller { return nil }

// Close does nothing.
func (p *Poller) Close() {}

// Len returns 0.
func (p *Poller) Len() int { return 0 }

func (p *Poller) number() uint64 { return 0 }

func (p *Poller) add(*Socket) bool { return false }

func (p *Poller) remove(*Socket) {}

// readOnce is for pollers only.
func readOnce(syscall.RawConn, []byte) (int, error) { return 0, errors.ErrUnsupported }
