// Package protocoltest has a client for tests of protocols that need no connection.
package protocoltest

import (
	"errors"
	"sync"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/internal/frame"
	"github.com/caddy-broadcast/caddy-broadcast/internal/frame/frametest"
	"github.com/caddy-broadcast/caddy-broadcast/internal/protocol"
)

// Peer is a client with a WebSocket: a frame.Receiver that gives the session what it sends, and a hub.Sink that keeps what it gets.
type Peer struct {
	protocol.Session
	mu  sync.Mutex
	got []byte
}

// SendText has the session receive a text frame.
func (p *Peer) SendText(text string) {
	r := frame.NewReader(1000, false)
	r.Feed(frametest.Mask(0x81, text), p)
}

// Got returns the bytes of all frames that the client got.
func (p *Peer) Got() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return string(p.got)
}

// Message implements frame.Receiver.
func (p *Peer) Message(m frame.Message) *frame.CloseError {
	var closing *frame.CloseError
	errors.As(p.Receive(m), &closing)
	return closing
}

// Control implements frame.Receiver.
func (*Peer) Control(frame.Opcode, []byte) *frame.CloseError { return nil }

// Closed implements frame.Receiver.
func (*Peer) Closed(frame.Code) {}

// TryWrite implements hub.Sink.
func (p *Peer) TryWrite(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.got = append(p.got, b...)
	return len(b), nil
}

// Write implements hub.Sink.
func (p *Peer) Write(b []byte, _ time.Duration) (int, error) { return p.TryWrite(b) }

// Close implements hub.Sink.
func (*Peer) Close() {}
