package socketio

import (
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/internal/frame"
	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/protocol"
	"github.com/caddy-broadcast/caddy-broadcast/internal/socketio/packet"
	"github.com/caddy-broadcast/caddy-broadcast/internal/websocket"
)

// upgradeTimeout is how long a client may take to move to a WebSocket.
const upgradeTimeout = 10 * time.Second

// What a client does that moves.
const (
	connecting = iota // it has to send a probe
	probing           // it has to wait for the answer to its GET, and say that it moves
	moved             // it has moved
	failed            // it makes no sense, and the WebSocket ends. The session goes on
)

// upgrade is a WebSocket that a polling client tries, and then moves to. It is websocket.Mover: until the client has moved, what
// happens to the WebSocket does not concern the session.
type upgrade struct {
	*poller
	timer *time.Timer

	mu     sync.Mutex
	socket hub.Sink
	stage  int
}

// upgrade accepts a WebSocket for the client. If there is one already, that one stays.
func (p *poller) upgrade(w http.ResponseWriter, r *http.Request, e *websocket.Endpoint) error {
	u := &upgrade{poller: p}
	if !p.tries(u) {
		return Refuse(w, r, packet.BadRequest)
	}
	return e.Move(w, r, u)
}

// tries notes that the client tries a WebSocket. It reports false if there is one already, or the session has ended.
func (p *poller) tries(u *upgrade) bool {
	// The official tests want the second WebSocket closed, and the first to go on.
	if !p.upgrading.CompareAndSwap(nil, u) {
		return false
	}
	// After the swap: either the end of the session finds the WebSocket, or it is found here.
	if p.transport.over() {
		u.abandon(nil)
		return false
	}
	return true
}

// Start implements websocket.Mover.
func (u *upgrade) Start(to hub.Sink) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.stage == failed { // the session has ended
		return false
	}
	u.socket = to
	u.timer = time.AfterFunc(upgradeTimeout, func() { u.abandon(nil) })
	return true
}

// to returns the connection, if the client has moved to the WebSocket.
func (u *upgrade) to() *hub.Conn {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.stage == moved {
		return u.conn
	}
	return nil
}

// Receive implements websocket.Mover.
func (u *upgrade) Receive(m frame.Message) error {
	u.mu.Lock()
	stage, socket := u.stage, u.socket
	u.mu.Unlock()
	switch stage {
	case moved:
		return u.session.Receive(m)
	case failed:
		return errEnded
	}
	data, err := m.Data()
	if err != nil {
		return err
	}
	p, closing := packet.ParseFrame(m.Opcode, data)
	switch {
	case closing != nil:
		return closing
	case stage == connecting && !p.Binary && p.Type == packet.EnginePing && string(p.Data) == packet.Probe:
		return u.probe(socket)
	case stage == probing && !p.Binary && p.Type == packet.EngineUpgrade:
		return u.move(socket)
	}
	return &frame.CloseError{Code: frame.ProtocolError, Text: "not what upgrades a session"}
}

// probe answers the client's probe.
func (u *upgrade) probe(socket hub.Sink) error {
	// Not by the hub, whose connection does not know of this WebSocket yet.
	pong := textFrame(append([]byte{byte(packet.EnginePong)}, packet.Probe...))
	if _, err := socket.Write(pong, u.options.WriteTimeout); err != nil {
		u.abandon(nil)
		return errEnded
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.stage != connecting {
		return errEnded // the time was up
	}
	u.stage = probing
	// After the answer, or the client could have its GET answered first, and would wait for the probe in vain.
	u.transport.probe(true)
	return nil
}

// move has the session go on by the WebSocket.
func (u *upgrade) move(socket hub.Sink) error {
	u.mu.Lock()
	if u.stage != probing {
		u.mu.Unlock()
		return errEnded // the time was up
	}
	u.stage = moved
	u.mu.Unlock()
	u.timer.Stop()
	u.conn.Alive()
	u.conn.SwitchTransport()
	u.in.Lock()
	u.source = u.options.Next
	u.in.Unlock()
	if err := u.transport.move(socket, u.options.WriteTimeout); err != nil {
		if errors.Is(err, errEnded) {
			socket.Close()
		}
		u.leave()
		return errEnded
	}
	return nil
}

// abandon ends the WebSocket, with a close frame if there is one, and leaves the session as it is.
func (u *upgrade) abandon(p []byte) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.stage >= moved {
		return
	}
	u.stage = failed
	// Before another WebSocket can begin, which has a probe of its own.
	u.transport.probe(false)
	u.upgrading.CompareAndSwap(u, nil)
	if u.socket == nil {
		return
	}
	u.timer.Stop()
	socket, timeout := u.socket, u.options.WriteTimeout
	go func() { // a stranger's socket may accept nothing
		if len(p) > 0 {
			socket.Write(p, timeout)
		}
		socket.Close()
	}()
}

// Alive implements websocket.Peer.
func (u *upgrade) Alive() {
	if c := u.to(); c != nil {
		c.Alive()
	}
}

// maxProbe is how much space a message may take before the move: more than it needs in any number of parts.
const maxProbe = 1 << 10

// Unfinished implements websocket.Peer. Before the move it is not the connection's, which would be taken for one that stalls
// if the WebSocket ended there. So nothing is counted then, and little is accepted.
func (u *upgrade) Unfinished(have, space int) bool {
	if c := u.to(); c != nil {
		return c.Unfinished(have, space)
	}
	if space > maxProbe {
		u.abandon(nil)
		return false
	}
	return true
}

// Finished implements websocket.Peer.
func (u *upgrade) Finished() {
	if c := u.to(); c != nil {
		c.Finished()
	}
}

// Reply implements websocket.Peer. A ping before the move gets no answer: clients in browsers cannot send one.
func (u *upgrade) Reply(p []byte) {
	if c := u.to(); c != nil {
		c.Reply(p)
	}
}

// Close implements websocket.Peer.
func (u *upgrade) Close(why hub.Reason, text string) {
	if c := u.to(); c != nil {
		c.Close(why, text)
		return
	}
	u.abandon(frame.CloseFrame(protocol.CloseCode(why), text))
}

// Fail implements websocket.Peer.
func (u *upgrade) Fail(why hub.Reason, text string) {
	if c := u.to(); c != nil {
		c.Fail(why, text)
		return
	}
	u.abandon(frame.CloseFrame(protocol.CloseCode(why), text))
}

// ReplyClose implements websocket.Peer.
func (u *upgrade) ReplyClose(p []byte) {
	if c := u.to(); c != nil {
		c.ReplyClose(p)
		return
	}
	u.abandon(p)
}

// Done implements websocket.Peer.
func (u *upgrade) Done() {
	if c := u.to(); c != nil {
		u.forget()
		c.Done()
		return
	}
	u.abandon(nil)
}
