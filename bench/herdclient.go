//go:build linux

package main

import (
	"bytes"
	"container/heap"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// herd is many clients of broadcast.v1 that reconnect and resume as client/broadcast.js does. One goroutine runs all of them:
// 10,000 goroutines would compete with the servers for the cores.
type herd struct {
	members []*member
	nodes   []string      // where they connect
	jitter  time.Duration // before the first attempt, after a connection has ended
	due     dueList
	ep      int
	buf     []byte
	asks    chan func() // run between two looks at the sockets
	ended   chan struct{}

	live   atomic.Int64
	counts *herdCounts // of the phase
}

// herdCounts is what happened in a phase.
type herdCounts struct {
	back       histogram // from the first attempt that a node answered to the hello, for each that came back
	slowest    time.Duration
	handshakes int64 // that a node answered
	refused    int64 // with a 503
	other      int64 // with another status, or that ended without one
	noNode     int64 // attempts that no node accepted
	lost       int64 // connections that ended
	resumed    int64 // hellos that said so
	gaps       int64
	deliveries int64
	missing    int64 // not received, and no gap said so
	twice      int64
}

// Where a member is.
const (
	away        = iota // waits for its next attempt
	connecting         // to the node's port
	shakingHand        // has sent its request
	upgraded           // waits for its hello
	connected          // has had it
)

// member is a client. Only the herd's goroutine uses it.
type member struct {
	number  int // also of its channel
	state   int
	fd      int
	due     time.Time // of the next attempt
	began   time.Time // the last attempt
	tried   time.Time // the first one that a node answered since the connection ended
	failed  int       // how often it has been scheduled since then
	node    int       // of the last attempt
	addr    string
	lastID  string
	last    int // number of its last message
	pending []byte
}

// dueList has the members that are away, the next to try first.
type dueList []*member

func (d dueList) Len() int           { return len(d) }
func (d dueList) Less(i, j int) bool { return d[i].due.Before(d[j].due) }
func (d dueList) Swap(i, j int)      { d[i], d[j] = d[j], d[i] }
func (d *dueList) Push(m any)        { *d = append(*d, m.(*member)) }
func (d *dueList) Pop() any {
	m := (*d)[len(*d)-1]
	*d = (*d)[:len(*d)-1]
	return m
}

// startHerd begins to connect n clients, spread over a time.
func startHerd(n int, nodes []string, over, jitter time.Duration) (h *herd, err error) {
	h = &herd{nodes: nodes, jitter: jitter, buf: make([]byte, 1<<20), asks: make(chan func(), 16), ended: make(chan struct{}), counts: new(herdCounts)}
	if h.ep, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, err
	}
	for i := range n {
		m := &member{number: i, due: time.Now().Add(over * time.Duration(i) / time.Duration(n))}
		h.members = append(h.members, m)
		heap.Push(&h.due, m)
	}
	go h.run()
	return h, nil
}

// do runs a function in the herd's goroutine, and waits for it.
func (h *herd) do(f func()) {
	done := make(chan struct{})
	h.asks <- func() { f(); close(done) }
	<-done
}

// phase ends a phase and returns what happened in it.
func (h *herd) phase() (c *herdCounts) {
	h.do(func() { c, h.counts = h.counts, new(herdCounts) })
	return c
}

// stop ends all connections.
func (h *herd) stop() {
	h.do(func() {
		for _, m := range h.members {
			if m.state != away {
				unix.Close(m.fd)
			}
		}
		close(h.ended)
	})
}

// aim sets which nodes the members connect to.
func (h *herd) aim(nodes []*server) {
	h.do(func() {
		h.nodes = nil
		for _, n := range nodes {
			h.nodes = append(h.nodes, n.addr)
		}
	})
}

// run is the herd's goroutine.
func (h *herd) run() {
	defer unix.Close(h.ep)
	events := make([]unix.EpollEvent, 1024)
	for {
		select {
		case f := <-h.asks:
			f()
			continue
		case <-h.ended:
			return
		default:
		}
		h.tryDue(time.Now())
		// 2 ms: as precise as an attempt's time has to be.
		n, err := unix.EpollWait(h.ep, events, 2)
		if err != nil && !errors.Is(err, unix.EINTR) {
			panic(err)
		}
		for _, ev := range events[:max(n, 0)] {
			h.ready(h.members[ev.Fd])
		}
	}
}

// tryDue begins the attempts that are due, some at a time, so that answers are read in between.
func (h *herd) tryDue(now time.Time) {
	for range 64 {
		if len(h.due) == 0 || h.due[0].due.After(now) {
			return
		}
		m := heap.Pop(&h.due).(*member)
		if m.failed <= 1 {
			m.node = m.number % len(h.nodes) // a balancer would spread them as evenly
		} else {
			m.node = (m.node + 1) % len(h.nodes)
		}
		m.addr = h.nodes[m.node]
		if err := h.dial(m, m.addr); err != nil {
			h.counts.noNode++
			h.retry(m)
		}
	}
}

// dial begins to connect.
func (h *herd) dial(m *member, addr string) error {
	a, err := net.ResolveTCPAddr("tcp4", addr)
	if err != nil {
		return err
	}
	if m.fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err != nil {
		return err
	}
	sa := &unix.SockaddrInet4{Port: a.Port}
	copy(sa.Addr[:], a.IP.To4())
	m.state, m.pending, m.began = connecting, m.pending[:0], time.Now()
	if err := unix.Connect(m.fd, sa); err != nil && err != unix.EINPROGRESS {
		unix.Close(m.fd)
		return err
	}
	err = unix.EpollCtl(h.ep, unix.EPOLL_CTL_ADD, m.fd, &unix.EpollEvent{Events: unix.EPOLLOUT, Fd: int32(m.number)})
	if err != nil {
		unix.Close(m.fd)
	}
	return err
}

// retry schedules the next attempt, as retry of client/broadcast.js does: at once after a connection has ended, unless there
// is jitter, and then after random delays of which the longest is doubled each time.
func (h *herd) retry(m *member) {
	delay := h.jitter
	if m.failed++; m.failed > 1 {
		delay = 250 * time.Millisecond << min(7, m.failed)
	}
	if delay > 0 {
		delay = rand.N(delay)
	}
	m.state, m.due = away, time.Now().Add(delay)
	heap.Push(&h.due, m)
}

// drop closes a connection that has ended or is wrong.
func (h *herd) drop(m *member) {
	// Closing does not remove it while a process that is being started has a copy of the descriptor: epoll(7), question 6.
	unix.EpollCtl(h.ep, unix.EPOLL_CTL_DEL, m.fd, nil)
	unix.Close(m.fd)
	if m.state == connected {
		h.counts.lost++
		h.live.Add(-1)
		m.failed, m.tried = 0, time.Time{}
	}
	h.retry(m)
}

// ready goes on with a connection whose socket is ready.
func (h *herd) ready(m *member) {
	if m.state == connecting {
		if code, err := unix.GetsockoptInt(m.fd, unix.SOL_SOCKET, unix.SO_ERROR); err != nil || code != 0 {
			h.counts.noNode++
			h.drop(m)
			return
		}
		m.state = shakingHand
		unix.EpollCtl(h.ep, unix.EPOLL_CTL_MOD, m.fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(m.number)})
		request := fmt.Sprintf("GET /ws/%s?last_id=%s HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"+
			"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: broadcast.v1\r\n\r\n", herdChannel(m.number), url.QueryEscape(m.lastID), m.addr)
		if _, err := unix.Write(m.fd, []byte(request)); err != nil {
			h.counts.other++
			h.drop(m)
		}
		return
	}
	n, err := unix.Read(m.fd, h.buf)
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
		return
	}
	if n <= 0 {
		if m.state != connected {
			h.counts.other++
		}
		h.drop(m)
		return
	}
	p := h.buf[:n]
	if len(m.pending) > 0 {
		p = append(m.pending, p...)
	}
	rest, ok := h.take(m, p)
	if !ok {
		h.drop(m)
		return
	}
	m.pending = append([]byte(nil), rest...)
}

// take takes what has come, and returns what is not complete yet. It is not ok if the connection is over.
func (h *herd) take(m *member, p []byte) (rest []byte, ok bool) {
	if m.state == shakingHand {
		head, after, whole := bytes.Cut(p, []byte("\r\n\r\n"))
		if !whole {
			return p, true
		}
		// From here on, and not when the kernel has accepted the connection: it does so for a process that is being killed too.
		h.counts.handshakes++
		if m.tried.IsZero() {
			m.tried = m.began
		}
		switch {
		case bytes.HasPrefix(head, []byte("HTTP/1.1 503")):
			h.counts.refused++
			return nil, false
		case !bytes.HasPrefix(head, []byte("HTTP/1.1 101")):
			h.counts.other++
			return nil, false
		}
		m.state, p = upgraded, after
	}
	for {
		op, data, after, whole := serverFrame(p)
		switch {
		case !whole:
			return p, true
		case op == 8: // closed by the server
			return nil, false
		case op == 9:
			// A pong without the ping's data, since nobody compares them here. Masked with zero.
			unix.Write(m.fd, []byte{0x8a, 0x80, 0, 0, 0, 0})
		case op == 1:
			h.read(m, data)
		}
		p = after
	}
}

// serverFrame splits off the first frame, which is not masked (RFC 6455, section 5.2).
func serverFrame(p []byte) (op byte, data, rest []byte, whole bool) {
	if len(p) < 2 {
		return 0, nil, p, false
	}
	n, head := int(p[1]&0x7f), 2
	switch {
	case n == 126 && len(p) >= 4:
		n, head = int(binary.BigEndian.Uint16(p[2:])), 4
	case n == 127 && len(p) >= 10:
		n, head = int(binary.BigEndian.Uint64(p[2:])), 10
	case n >= 126:
		return 0, nil, p, false
	}
	if len(p) < head+n {
		return 0, nil, p, false
	}
	return p[0] & 0xf, p[head : head+n], p[head+n:], true
}

// read reads a text frame of broadcast.v1: see docs/protocol.md.
func (h *herd) read(m *member, data []byte) {
	var items []struct {
		ID    string
		Data  int
		Hello *struct {
			ID      string
			Resumed bool
		}
		Gap *struct{ ID string }
	}
	if err := json.Unmarshal(data, &items); err != nil {
		panic(fmt.Sprintf("a frame of %q: %v", data, err))
	}
	gap := false
	for _, item := range items {
		switch {
		case item.Hello != nil:
			m.lastID = item.Hello.ID
			if item.Hello.Resumed {
				h.counts.resumed++
			}
			took := time.Since(m.tried)
			h.counts.back.add(took.Nanoseconds())
			h.counts.slowest = max(h.counts.slowest, took)
			m.state, m.failed = connected, 0
			h.live.Add(1)
		case item.Gap != nil:
			h.counts.gaps++
			gap = true
			if item.Gap.ID != "" {
				m.lastID = item.Gap.ID
			}
		case item.ID != "":
			h.counts.deliveries++
			m.lastID = item.ID
			h.number(m, item.Data, gap)
			gap = false
		}
	}
	if gap { // of a channel on which nothing has come since: the next message may have any number
		m.last = -1
	}
}

// number compares a message's number with the one before it. The messages of a channel are numbered from 1.
func (h *herd) number(m *member, n int, gap bool) {
	switch {
	case n <= m.last:
		h.counts.twice++
		return
	case m.last >= 0 && !gap:
		h.counts.missing += int64(n - m.last - 1)
	}
	m.last = n
}

// herdChannel names a member's channel.
func herdChannel(i int) string { return fmt.Sprint("herd-", i) }
