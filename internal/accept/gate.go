// Package accept bounds how many connections of an HTTP server are being set up at the same time.
//
// When ten thousand clients come back at once, net/http accepts all of them and starts a goroutine for each. Those that
// can run wait in one queue, so that a publisher's request waits until thousands of TLS handshakes are done, and each connection
// has its buffers meanwhile. With a gate the connections wait in the kernel instead, where they cost nothing and are in nobody's way.
package accept

import (
	"net"
	"net/http"
	"runtime"
	"slices"
	"sync"
	"time"
)

// Gate is closed while a number of connections are being set up: from when the server has accepted them until it has read a
// request's head. It is a hook of http.Server.ConnState, which the server calls before it accepts the next connection.
//
// A client that sends nothing keeps nobody out: after a time its connection does not count any more. So the gate lets in at least
// most/patience connections per second, whatever the clients do.
type Gate struct {
	most     int
	patience time.Duration

	mu       sync.Mutex
	settling map[net.Conn]struct{}
	order    []arrival     // those that settle, the oldest first, and some that do not any more
	left     chan struct{} // has a value after a connection has stopped to settle
}

// arrival is when a connection was accepted.
type arrival struct {
	conn net.Conn
	at   time.Time
}

// Chosen by measuring (docs/performance.md, "Storms"). Per core, because that is what connections wait for: a TLS handshake takes
// about 0.5 ms of one, so those before a publisher's request take about 16 ms. Together they let at least 640 silent connections in
// per second and core. With less patience a machine that is busy with something else too lets in more than it has set up.
const (
	mostPerCore = 32
	patience    = 50 * time.Millisecond
)

// NewGate returns an open gate for this machine.
func NewGate() *Gate { return newGate(mostPerCore*runtime.GOMAXPROCS(0), patience) }

func newGate(most int, patience time.Duration) *Gate {
	return &Gate{most: most, patience: patience, settling: make(map[net.Conn]struct{}), left: make(chan struct{}, 1)}
}

// ConnState is the hook.
func (g *Gate) ConnState(conn net.Conn, state http.ConnState) {
	if state == http.StateNew {
		g.enter(conn)
		// What a core starts itself, and what that starts, comes before what the network has made ready, for 61 turns of the
		// scheduler, and the accepting goroutine makes such work without end. So it goes to the end of the queue that
		// publishers are in too.
		runtime.Gosched()
		return
	}
	g.leave(conn) // a second time does nothing
}

// enter counts a connection, after it has waited until there are few enough.
func (g *Gate) enter(conn net.Conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for {
		now := time.Now()
		g.forget(now)
		if len(g.settling) < g.most {
			break
		}
		// One of them leaves, or the oldest does not count any more.
		wait := time.NewTimer(g.order[0].at.Add(g.patience).Sub(now))
		g.mu.Unlock()
		select {
		case <-g.left:
		case <-wait.C:
		}
		wait.Stop()
		g.mu.Lock()
	}
	g.settling[conn] = struct{}{}
	g.order = append(g.order, arrival{conn, time.Now()})
}

// forget drops connections from the front that do not settle any more, or have had their time. So the list has those of the last
// moment only.
func (g *Gate) forget(now time.Time) {
	n := 0
	for _, a := range g.order {
		if _, ok := g.settling[a.conn]; ok && now.Sub(a.at) < g.patience {
			break
		}
		delete(g.settling, a.conn)
		n++
	}
	g.order = slices.Delete(g.order, 0, n)
}

// leave stops counting a connection.
func (g *Gate) leave(conn net.Conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if _, ok := g.settling[conn]; !ok {
		return
	}
	delete(g.settling, conn)
	select {
	case g.left <- struct{}{}:
	default:
	}
}
