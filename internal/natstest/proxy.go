package natstest

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"strconv"
	"sync"
	"testing"

	"github.com/caddy-broadcast/caddy-broadcast/internal/servertest"
)

// Proxy stands between clients and a server, and can drop single messages.
type Proxy struct {
	*servertest.Proxy

	// Guards the fields below, which tests change while connections read them.
	mu      sync.Mutex
	drop    func(subject string, payload []byte) bool
	dropped int
}

// NewProxy starts a proxy to a server, which ends with the test.
func NewProxy(t testing.TB, s *Server) *Proxy {
	t.Helper()
	p := new(Proxy)
	p.Proxy = servertest.NewProxy(t, s.Addr(), p.filter)
	return p
}

// URL is the address of the proxy.
func (p *Proxy) URL() string { return "nats://" + p.Addr() }

// Drop drops messages from the server to its clients for which drop returns true. nil drops none.
func (p *Proxy) Drop(drop func(subject string, payload []byte) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.drop = drop
}

// Dropped returns how many messages were dropped.
func (p *Proxy) Dropped() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.dropped
}

// filter copies what a server sends, message by message: "MSG subject sid [reply] size" or "HMSG subject sid [reply] header
// size", and the payload. Everything else is a line. The size is the last field, of the payload with its header
// (client.msgHeader, server/client.go, nats-server v2.15.2).
func (p *Proxy) filter(through *servertest.Proxy, client, server net.Conn) {
	in, out := bufio.NewReaderSize(server, 64<<10), bufio.NewWriterSize(client, 64<<10)
	for {
		line, err := in.ReadBytes('\n')
		if err != nil {
			return
		}
		var payload []byte
		fields := bytes.Fields(line)
		message := len(fields) > 3 && (bytes.Equal(fields[0], []byte("MSG")) || bytes.Equal(fields[0], []byte("HMSG")))
		if message {
			size, err := strconv.Atoi(string(fields[len(fields)-1]))
			if err != nil {
				return
			}
			// The payload has the header, and is followed by CR and LF. Only whole messages can be dropped, or the client
			// would take the next one's bytes for this one's and close the connection as broken.
			payload = make([]byte, size+2)
			if _, err := io.ReadFull(in, payload); err != nil {
				return
			}
		}
		if message && p.drops(string(fields[1]), payload) {
			continue
		}
		if in.Buffered() == 0 {
			through.Wait() // p.Proxy may not be set yet
		}
		out.Write(line)
		out.Write(payload)
		if in.Buffered() == 0 && out.Flush() != nil {
			return
		}
	}
}

func (p *Proxy) drops(subject string, payload []byte) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.drop == nil || !p.drop(subject, payload) {
		return false
	}
	p.dropped++
	return true
}
