//go:build !linux

package websocket

func (p *Poller) count() int { return 0 }
