package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/oracle"
)

// trace is a format that writes a transcript.
type trace struct{ c *cluster }

func (trace) Append(dst []byte, run []*hub.Message) []byte {
	for _, m := range run {
		dst = oracle.Message(dst, m.Channel, m.ID(), m.Data)
	}
	return dst
}

func (trace) Ping() []byte { return nil }

func (trace) Close(why hub.Reason, _ string) []byte { return oracle.Closed(nil, why) }

func (t trace) Gap(channels []string) []byte { return oracle.Gap(nil, channels, t.c.position()) }

// wire is a client's end of a connection, and takes everything at once.
type wire struct {
	mu     sync.Mutex
	got    []byte
	closed bool          // it takes nothing any more
	loses  bool          // the next write: for the test of the simulation itself
	over   bool          // ended is closed
	ended  chan struct{} // closed when the client knows that it is over
}

func newWire() *wire { return &wire{ended: make(chan struct{})} }

// TryWrite implements hub.Sink.
func (w *wire) TryWrite(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return 0, net.ErrClosed
	}
	if w.loses {
		w.loses = false
		return len(p), nil
	}
	w.got = append(w.got, p...)
	// The close frame comes last. The peer answers it.
	if last := w.got[bytes.LastIndexByte(w.got[:max(0, len(w.got)-1)], '\n')+1:]; bytes.HasPrefix(last, []byte("closed ")) {
		w.endLocked()
	}
	return len(p), nil
}

// Write implements hub.Sink.
func (w *wire) Write(p []byte, _ time.Duration) (int, error) { return w.TryWrite(p) }

// Close implements hub.Sink.
func (w *wire) Close() { w.cut() }

// cut ends the connection: nothing more arrives.
func (w *wire) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	w.endLocked()
}

func (w *wire) endLocked() {
	if !w.over {
		w.over = true
		close(w.ended)
	}
}

func (w *wire) transcript() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return string(w.got)
}

var (
	errNobody = errors.New("no node is up")
	errDead   = errors.New("the machine does not answer")
)

// client is one that stays on a channel. When its connection ends it connects again, with the position of the last message,
// as broadcast.js does.
type client struct {
	*cluster
	number, room int
	before       []oracle.Connection // those that it had
	lastID       string
	wire         *wire // nil while it has no connection
}

// channels returns those that it is on: its room, and in some scenarios the next room and one that all are on. Only a client on
// several channels may get a late message out of order, so it is told of a gap instead.
func (k *client) channels() []string {
	names := []string{channelName(k.room)}
	if k.several {
		names = append(names, channelName(k.room+1), channelName(news))
	}
	return names
}

// news is the room that all are in, if they are in several.
const news = -1

func channelName(room int) string { return fmt.Sprint("room", room) }

// run connects again and again. The delays are those of broadcast.js: the first try comes within a second, and the wait doubles
// up to 30 seconds.
func (k *client) run() {
	wait, lost := time.Second, time.Time{}
	for k.wait(k.between(wait)) {
		n := k.pick(k.room)
		conn, err := k.connect(n)
		if err != nil {
			k.report.refused(err)
			wait = min(2*wait, 30*time.Second)
			continue
		}
		if !lost.IsZero() {
			k.report.returned(time.Since(lost))
		}
		wait = time.Second
		over := false
		select {
		case <-k.wire.ended:
		case <-k.ended:
			over = true
		}
		k.leave(n, conn, over)
		if over {
			return
		}
		lost = time.Now()
	}
}

// leave notes what a connection was told, and ends it. One that is there until the end must have been told everything.
func (k *client) leave(n *node, conn *hub.Conn, over bool) {
	transcript := k.wire.transcript()
	k.before = append(k.before, oracle.Connection{
		Name: fmt.Sprintf("client %d", k.number), Channels: k.channels(), LastID: k.lastID, Gone: !over, Transcript: transcript,
	})
	k.lastID = oracle.Position(k.lastID, transcript)
	k.mu.Lock()
	delete(n.clients, k)
	if !over {
		k.wire = nil
	}
	k.mu.Unlock()
	conn.Done()
}

// connect connects to a node.
func (k *client) connect(n *node) (*hub.Conn, error) {
	if n == nil {
		return nil, errNobody
	}
	k.mu.Lock()
	h, dead := n.hub, n.killed
	k.mu.Unlock()
	if dead {
		return nil, errDead
	}
	conn, welcome, err := h.Connect(hub.Subscriber{Channels: k.channels(), LastID: k.lastID}, k.options)
	if err != nil {
		return nil, err
	}
	w := newWire()
	k.mu.Lock()
	k.wire = w
	n.clients[k] = struct{}{}
	if n.killed && n.hub == h {
		w.cut()
	}
	k.mu.Unlock()
	conn.Start(w, oracle.Hello(nil, welcome.ID, k.position(), welcome.Gaps))
	return conn, nil
}
