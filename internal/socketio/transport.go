package socketio

import (
	"bytes"
	"context"
	"sync"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/socketio/packet"
)

const (
	// bufferSize is how many bytes wait for the next GET. As soon as there are more, nothing is accepted, as by a socket whose
	// buffer is full, and what else there is to send waits in the connection's backlog, which has its limits already.
	bufferSize = 64 << 10

	// maxAnswer is about how many bytes the answer to a GET has. It is more only if one packet is.
	maxAnswer = 1 << 20

	// sessionCost is about what a session takes that polls. It counts as memory, unlike connections, because nothing else bounds
	// how many there are: a GET begins one, and needs no connection that stays.
	sessionCost = 2 << 10

	closePacket = string(packet.EngineClose)
	noopPacket  = string(packet.EngineNoop)
)

// transport is the hub.Sink of a client that began by polling. It takes the WebSocket frames that the hub makes for all
// clients of Socket.IO and keeps them until a GET comes for them, as packets. When the client has moved to a WebSocket it
// hands them on, so neither the hub nor the order of anything is concerned by the move.
type transport struct {
	closed func(kept bool) // is told once that the hub has let go, and whether there is something for another GET
	hold   func(n int)     // hub.Hub.Hold

	mu       sync.Mutex
	buffered []byte        // frames
	held     int           // that is counted of it
	room     chan struct{} // closed when there is room, or no need for any; nil if nobody waits
	waiting  chan struct{} // gets a value when the GET that waits has to look; nil if none waits
	answer   string        // what that GET, or the next one, gets instead of waiting
	probed   bool          // the client has tried a WebSocket and will move to it: no GET may wait
	moving   bool          // what is buffered is being written to the WebSocket
	moved    hub.Sink      // the WebSocket
	ended    bool          // by the hub
}

// wakeLocked has the GET that waits look again.
func (t *transport) wakeLocked() {
	if t.waiting != nil {
		select {
		case t.waiting <- struct{}{}:
		default:
		}
	}
}

// releaseLocked has Write look again.
func (t *transport) releaseLocked() {
	if t.room != nil {
		close(t.room)
		t.room = nil
	}
}

// hasRoomLocked reports whether more is accepted. A part of a frame is no use to a GET, so its rest is accepted always.
func (t *transport) hasRoomLocked() bool {
	return len(t.buffered) < bufferSize || !packet.BeginsWhole(t.buffered)
}

// setLocked sets what is buffered.
func (t *transport) setLocked(frames []byte) {
	t.buffered = frames
	t.hold(cap(frames) - t.held)
	t.held = cap(frames)
}

// Buffered implements hub.BufferedSink.
func (t *transport) Buffered() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.held + sessionCost
}

// TryWrite implements hub.Sink.
func (t *transport) TryWrite(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.moved != nil:
		return t.moved.TryWrite(p)
	// All or nothing: what is not accepted stays in the backlog, which shares its bytes with those of other connections.
	case t.moving || !t.hasRoomLocked():
		return 0, nil
	}
	t.setLocked(append(t.buffered, p...))
	t.wakeLocked()
	return len(p), nil
}

// Write implements hub.Sink. While there is no room it waits for a GET, as one to a socket waits for the peer.
func (t *transport) Write(p []byte, timeout time.Duration) (int, error) {
	var late <-chan time.Time
	t.mu.Lock()
	for !t.ended {
		if to := t.moved; to != nil {
			t.mu.Unlock()
			return to.Write(p, timeout)
		}
		if !t.moving && t.hasRoomLocked() {
			t.setLocked(append(t.buffered, p...))
			t.wakeLocked()
			t.mu.Unlock()
			return len(p), nil
		}
		room := make(chan struct{})
		t.room = room
		t.mu.Unlock()
		if late == nil {
			timer := time.NewTimer(timeout)
			defer timer.Stop()
			late = timer.C
		}
		select {
		case <-room:
		case <-late:
			return 0, hub.ErrStuck
		}
		t.mu.Lock()
	}
	t.mu.Unlock()
	return 0, errEnded
}

// CloseWrite implements hub.HalfCloser. A client that polls sees the end in an answer.
func (t *transport) CloseWrite() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if half, ok := t.moved.(hub.HalfCloser); ok {
		half.CloseWrite()
	}
}

// Close implements hub.Sink.
func (t *transport) Close() {
	t.mu.Lock()
	t.ended = true
	t.hold(-sessionCost)
	t.releaseLocked()
	kept := false
	if t.moved != nil {
		t.moved.Close()
	} else if t.waiting != nil {
		kept = t.answer == "" && len(t.buffered) > 0 && !t.onlyEndLocked()
		t.wakeLocked()
	} else if t.answer != "" {
		kept = t.answer == closePacket // what came before the end has been taken
		t.setLocked(nil)
	} else if !t.moving {
		// Only what the client would be told of the end is kept: without it the session is just not known any more. Of the
		// messages before it, it gets none: it has not come for them for as long as it may take.
		payload, _ := packet.AppendPayload(nil, t.buffered, 2*len(t.buffered))
		t.answer = string(parting(payload))
		kept = t.answer != ""
		t.setLocked(nil)
	}
	t.mu.Unlock()
	t.closed(kept)
}

// parting returns the packets at the end of a payload that tell the client of its end.
func parting(payload []byte) []byte {
	if !isLast(payload) {
		return nil
	}
	from := len(payload) - 1
	for from > 0 {
		start := bytes.LastIndexByte(payload[:from-1], packet.Separator) + 1
		if p := payload[start : from-1]; len(p) < 2 || p[0] != byte(packet.EngineMessage) || p[1] != byte(packet.Disconnect) {
			break
		}
		from = start
	}
	return payload[from:]
}

// isLast reports whether nothing comes after a payload. No other packet ends like that: JSON has no control characters.
func isLast(payload []byte) bool {
	n := len(payload)
	return n > 0 && payload[n-1] == byte(packet.EngineClose) && (n == 1 || payload[n-2] == packet.Separator)
}

// pollResult is what has come of a GET.
type pollResult int

const (
	pollAnswer  pollResult = iota // there is an answer
	pollSecond                    // another GET waits: the client makes no sense
	pollGone                      // the client has given up
	pollRefused                   // the client has moved to a WebSocket
)

// poll waits until there is something to answer a GET with.
func (t *transport) poll(ctx context.Context) ([]byte, pollResult) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.waiting != nil {
		return nil, pollSecond
	}
	if t.moving || t.moved != nil {
		return nil, pollRefused
	}
	waiting := make(chan struct{}, 1)
	t.waiting = waiting
	defer func() {
		t.waiting = nil
		if t.ended { // Close has left it to this GET, and the session is not known any more
			t.setLocked(nil)
		}
	}()
	for {
		switch {
		// Before what is buffered: a client that has ended its session wants none of it.
		case t.answer != "":
			return t.beforeEndLocked([]byte(t.answer)), pollAnswer
		case t.moving || t.moved != nil:
			return []byte(noopPacket), pollAnswer
		// Also when the client is about to move: what a GET has taken, the WebSocket does not send again.
		case len(t.buffered) > 0:
			if p := t.takeLocked(); len(p) > 0 {
				return p, pollAnswer
			}
		}
		if t.ended {
			return []byte(closePacket), pollAnswer
		}
		if t.probed {
			return []byte(noopPacket), pollAnswer
		}
		t.mu.Unlock()
		gone := false
		select {
		case <-waiting:
		case <-ctx.Done():
			gone = true
		}
		t.mu.Lock()
		if gone {
			return nil, pollGone
		}
	}
}

// takeLocked takes what a GET is answered with.
func (t *transport) takeLocked() []byte {
	payload, left := packet.AppendPayload(make([]byte, 0, min(len(t.buffered), maxAnswer)+16), t.buffered, maxAnswer)
	if len(left) == 0 {
		t.setLocked(nil) // a client that polls holds no memory while it waits
	} else if len(left) < len(t.buffered) {
		t.setLocked(append([]byte(nil), left...))
	}
	t.releaseLocked()
	return t.beforeEndLocked(payload)
}

// beforeEndLocked returns a payload without the end of the session, which is left for another GET, unless it is all there is.
// Clients look at the end at once, and at what comes with it later: told to stay away they would come back, and events that are
// recovered then come twice (socket.io-client 4.8.4, lib/manager.ts, ondecoded). The reference sends the end alone too.
func (t *transport) beforeEndLocked(payload []byte) []byte {
	if len(payload) <= len(closePacket) || !isLast(payload) {
		return payload
	}
	t.answer = closePacket
	return payload[:len(payload)-len(closePacket)-1]
}

// onlyEndLocked reports whether the end of the session is all that is buffered.
func (t *transport) onlyEndLocked() bool {
	payload, _ := packet.AppendPayload(nil, t.buffered, 1)
	return string(payload) == closePacket
}

// finish has a GET that waits answered, because the client has ended the session itself.
func (t *transport) finish(answer string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.answer = answer
	t.wakeLocked()
}

// probe has no GET wait any more: the client goes on when it has got the answer to the last one.
func (t *transport) probe(on bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.probed = on
	t.wakeLocked()
}

// polls reports whether the client has not moved to a WebSocket.
func (t *transport) polls() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return !t.moving && t.moved == nil
}

// over reports whether the hub has ended the session.
func (t *transport) over() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.ended
}

// move has all go to a WebSocket from now on, first what no GET has come for.
func (t *transport) move(to hub.Sink, timeout time.Duration) error {
	t.mu.Lock()
	if t.ended || t.moving || t.moved != nil || t.answer != "" { // with an answer, all but the end was taken
		t.mu.Unlock()
		return errEnded
	}
	t.moving = true
	p := t.buffered
	t.buffered = nil // it stays counted until it is written
	t.wakeLocked()
	t.mu.Unlock()

	// Without the lock, because the client may be slow to read. The hub's writes wait meanwhile.
	var err error
	for len(p) > 0 && err == nil {
		var n int
		n, err = to.Write(p, timeout)
		p = p[n:]
	}

	t.mu.Lock()
	defer t.mu.Unlock()
	t.moving, t.moved = false, to
	t.setLocked(nil)
	t.releaseLocked()
	if t.ended {
		return errEnded // the caller closes the WebSocket
	}
	return err
}
