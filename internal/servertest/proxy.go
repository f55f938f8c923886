package servertest

import (
	"net"
	"strconv"
	"sync"
	"testing"
	"time"
)

// Proxy stands between clients and a server, and does to their connections what networks do. No existing proxy is used
// because some tests have to drop single messages, for which a proxy must understand the protocol (down of NewProxy). One
// that copies bytes can only delay them or break the connection.
type Proxy struct {
	target   string
	listener net.Listener
	down     func(p *Proxy, client, server net.Conn)

	// Guards the fields below, which tests change while two goroutines for each connection read them.
	mu     sync.Mutex
	conns  map[net.Conn]bool
	refuse bool
	hole   chan struct{} // closed when bytes may pass
	delay  time.Duration
}

// NewProxy starts a proxy to an address, which ends with the test. down copies what a server sends to a client until the
// connection ends; it calls Wait of p before each write. If it is nil, bytes are copied.
func NewProxy(t testing.TB, target string, down func(p *Proxy, client, server net.Conn)) *Proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	// Closed: a new proxy lets everything pass.
	open := make(chan struct{})
	close(open)
	p := &Proxy{target: target, listener: l, down: down, conns: map[net.Conn]bool{}, hole: open}
	if down == nil {
		p.down = (*Proxy).copy
	}
	go p.accept()
	t.Cleanup(func() {
		l.Close()
		// Pass comes before Cut, because a goroutine that is held does not see that its connection is closed.
		p.Pass()
		p.Cut()
	})
	return p
}

// Addr returns the address of the proxy.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// Port returns the port of the proxy.
func (p *Proxy) Port() string { return strconv.Itoa(p.listener.Addr().(*net.TCPAddr).Port) }

// Cut closes all connections. New ones are accepted. The goroutines that copy notice it at their next read or write, and
// close the other half.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		c.Close()
	}
}

// Refuse closes all connections, and new ones too until Accept. It refuses new ones first: a client that is cut off
// reconnects at once, and must not succeed.
func (p *Proxy) Refuse() { p.setRefuse(true); p.Cut() }

// Accept accepts connections again.
func (p *Proxy) Accept() { p.setRefuse(false) }

func (p *Proxy) setRefuse(on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refuse = on
}

// Hold lets no byte pass in either direction until Pass. Connections stay open.
func (p *Proxy) Hold() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.hole:
		p.hole = make(chan struct{})
	default:
	}
}

// Pass ends Hold.
func (p *Proxy) Pass() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.hole:
	default:
		close(p.hole)
	}
}

// Delay delays each piece of data by d, in both directions. A whole read is one piece, so this adds latency and does not
// model a slow network.
func (p *Proxy) Delay(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delay = d
}

// accept runs until the listener is closed.
func (p *Proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.mu.Lock()
		refuse := p.refuse
		p.mu.Unlock()
		if refuse {
			client.Close()
			continue
		}
		// It dials once for each client, so a server that has been killed looks to the client as if it had not been
		// there: closed at once.
		server, err := net.Dial("tcp", p.target)
		if err != nil {
			client.Close()
			continue
		}
		p.mu.Lock()
		p.conns[client], p.conns[server] = true, true
		p.mu.Unlock()
		both := func() {
			client.Close()
			server.Close()
			p.mu.Lock()
			delete(p.conns, client)
			delete(p.conns, server)
			p.mu.Unlock()
		}
		// What clients send is copied as bytes. Hold and Cut are faults enough in that direction, and a message that
		// is published can lose its ack in the other one.
		go func() { defer both(); p.copy(server, client) }()
		go func() { defer both(); p.down(p, client, server) }()
	}
}

// Wait returns when bytes are not held back any more.
func (p *Proxy) Wait() {
	p.mu.Lock()
	hole, delay := p.hole, p.delay
	p.mu.Unlock()
	<-hole
	if delay > 0 {
		time.Sleep(delay)
	}
}

// copy is not io.Copy, because what was read has to wait before it is written.
func (p *Proxy) copy(to, from net.Conn) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		p.Wait()
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}
