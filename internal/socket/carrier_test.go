package socket

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	mathrand "math/rand/v2"
	"net"
	"runtime"
	"testing"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
)

// nobody is a receiver that ignores everything.
type nobody struct{}

func (nobody) Received([]byte) bool { return true }
func (nobody) Ended()               {}

// secure returns both ends of a TLS connection with small buffers.
func secure(t testing.TB) (*Socket, *tls.Conn) {
	server, client := securePair(t, func(c net.Conn) net.Conn { return c })
	return New(server, nil, nobody{}, nil), client
}

// securePair returns both ends of a TLS connection with small buffers. The client's is over what wrap makes of its socket.
func securePair(t testing.TB, wrap func(net.Conn) net.Conn) (server, client *tls.Conn) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	accepted, dialed := tcpPair(t)
	dialed.SetReadBuffer(4 << 10)
	accepted.SetWriteBuffer(4 << 10)
	server = tls.Server(accepted, &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}})
	client = tls.Client(wrap(dialed), &tls.Config{InsecureSkipVerify: true})
	done := make(chan error, 1)
	go func() { done <- server.Handshake() }()
	if err := client.Handshake(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dialed.Close(); accepted.Close() })
	return server, client
}

// TestInside: this version of crypto/tls has its fields where a carrier needs them.
func TestInside(t *testing.T) {
	if !inside.known {
		t.Error("crypto/tls has changed: each TLS connection has a goroutine, and all it is sent goes through flushers")
	}
	s, client := secure(t)
	if s.carrier == nil {
		t.Fatal("there is no carrier")
	}
	if s.Conn.(*tls.Conn).NetConn() != net.Conn(s.carrier) || client.NetConn() == nil {
		t.Error("the carrier is not below TLS")
	}
}

// hand writes as the hub does: without waiting if nothing waits, and else, and the rest, in a flusher.
func hand(s *Socket, p []byte, timeout time.Duration) error {
	n, err := s.TryWrite(p)
	for err == nil && n < len(p) {
		m := 0
		m, err = s.Write(p[n:], timeout)
		n += m
	}
	return err
}

// TestCarrier: whatever is written, in whatever sizes, arrives, while the client takes it as it likes and sends itself.
func TestCarrier(t *testing.T) {
	poller := NewPoller()
	defer poller.Close()
	server, client := securePair(t, func(c net.Conn) net.Conn { return c })
	received := make(chan []byte, 1000)
	s := New(server, nil, collector(received), poller)
	s.Receive()
	seed := uint64(time.Now().UnixNano())
	t.Log("seed", seed)
	r := mathrand.New(mathrand.NewPCG(seed, 0))
	var sent [][]byte
	for range 40 {
		p := make([]byte, 1+r.IntN([]int{3, 200, 5000, 40_000}[r.IntN(4)]))
		for i := range p {
			p[i] = byte(r.Uint32())
		}
		sent = append(sent, p)
	}
	failed := make(chan error, 1)
	go func() {
		for _, p := range sent {
			if err := hand(s, p, 20*time.Second); err != nil {
				failed <- err
				return
			}
		}
		failed <- nil
	}()
	go func() {
		for _, p := range sent {
			client.Write(p)
		}
	}()
	want := bytes.Join(sent, nil)
	for name, from := range map[string]io.Reader{"client": client, "server": collected(received)} {
		got := make([]byte, len(want))
		if n, err := io.ReadFull(from, got); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%s: %d of %d bytes, %v", name, n, len(want), err)
		}
	}
	if err := <-failed; err != nil {
		t.Error(err)
	}
	client.Close()
	for range received { // until it has ended
	}
	s.Close()
}

// collector is a receiver that passes on what it gets.
type collector chan []byte

func (c collector) Received(p []byte) bool {
	c <- bytes.Clone(p)
	return true
}

func (c collector) Ended() { close(c) }

// collected reads what a collector passes on.
type collected <-chan []byte

func (c collected) Read(p []byte) (int, error) { // p always has room, because each piece is read in full
	piece, ok := <-c
	if !ok {
		return 0, io.EOF
	}
	if copy(p, piece) < len(piece) {
		panic("too small")
	}
	return len(piece), nil
}

// TestCarrierStuck: after a client has accepted nothing for a while, writing goes on where it was, and nothing is lost or sent
// twice. Meanwhile the loop is not blocked.
func TestCarrierStuck(t *testing.T) {
	s, client := secure(t)
	p := make([]byte, 96<<10)
	for i := range p {
		p[i] = byte(i >> 8)
	}
	n, err := s.TryWrite(p)
	if n == 0 || n == len(p) || err != nil {
		t.Fatalf("the system has taken %d bytes: %v", n, err)
	}
	for err == nil {
		var m int
		m, err = s.Write(p[n:], 50*time.Millisecond)
		n += m
	}
	if !errors.Is(err, hub.ErrStuck) {
		t.Fatal(err)
	}
	got := make([]byte, len(p))
	if _, err := io.ReadFull(client, got[:n]); err != nil { // so there is room for what is encrypted already
		t.Fatal(err)
	}
	go func() {
		if err := hand(s, p[n:], time.Minute); err != nil {
			t.Error(err)
		}
	}()
	if _, err := io.ReadFull(client, got[n:]); err != nil || !bytes.Equal(got, p) {
		t.Errorf("it is not what was sent: %v", err)
	}
}

// TestCarrierClose: ending a connection whose client accepts nothing waits for nothing, even while a flusher does.
func TestCarrierClose(t *testing.T) {
	s, _ := secure(t)
	n, err := s.TryWrite(make([]byte, 1<<20))
	if n == 1<<20 || err != nil {
		t.Fatal(n, err)
	}
	ended := make(chan error)
	go func() {
		_, err := s.Write(make([]byte, 1<<20), time.Hour)
		ended <- err
	}()
	s.CloseWrite()
	s.Close()
	if err := <-ended; err == nil {
		t.Error("the write went on")
	}
}

// opaque is a connection of which only its methods are known. It cannot be compared.
type opaque struct {
	net.Conn
	_ []byte
}

// recording is a connection that keeps what was read from it.
type recording struct {
	net.Conn
	read []byte
}

func (c *recording) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.read = append(c.read, p[:n]...)
	return n, err
}

// TestCarrierGoodbye: a TLS client is told that there is no more, also where nothing can be written without blocking, and where
// the socket has no room for it at first.
func TestCarrierGoodbye(t *testing.T) {
	same := func(c net.Conn) net.Conn { return c }
	for name, wrap := range map[string]func(net.Conn) net.Conn{
		"a socket":  same,
		"no room":   same,
		"a wrapper": func(c net.Conn) net.Conn { return opaque{Conn: c} },
	} {
		t.Run(name, func(t *testing.T) {
			wire := new(recording)
			server, client := securePair(t, func(c net.Conn) net.Conn { wire.Conn = c; return wire })
			*inside.transport(server) = wrap(server.NetConn())
			s := New(server, nil, nobody{}, nil)
			want := 0
			for name == "no room" && !s.carrier.holds() {
				n, err := s.TryWrite(make([]byte, 100))
				if want += n + s.carrier.owed; err != nil {
					t.Fatal(err)
				}
			}
			s.CloseWrite()
			// A record with an alert: RFC 8446, section 5.2.
			last := []byte{23, 3, 3, 0, 2 + 1 + 16}
			client.SetReadDeadline(time.Now().Add(20 * time.Second))
			if n, err := io.Copy(io.Discard, client); int(n) != want || err != nil {
				t.Errorf("%d of %d bytes, %v", n, want, err)
			}
			if got := wire.read; !bytes.Equal(got[len(got)-len(last)-19:][:len(last)], last) {
				t.Error("the end is not an alert")
			}
			s.Close()
		})
	}
}

// inPieces is a connection that sends each byte by itself.
type inPieces struct{ net.Conn }

func (c inPieces) Write(p []byte) (int, error) {
	for i := range p {
		if _, err := c.Conn.Write(p[i : i+1]); err != nil {
			return i, err
		}
	}
	return len(p), nil
}

// TestCarrierPieces: records are read that come in pieces, and the end behind them is noticed.
func TestCarrierPieces(t *testing.T) {
	poller := NewPoller()
	defer poller.Close()
	server, client := securePair(t, func(c net.Conn) net.Conn { return inPieces{c} })
	received := make(chan []byte, 1000)
	s := New(server, nil, collector(received), poller)
	s.Receive()
	want := bytes.Repeat([]byte("all of it "), 100)
	go func() {
		for i := range 100 {
			client.Write(want[10*i:][:10])
		}
		client.Close()
	}()
	var got []byte
	for p := range received {
		got = append(got, p...)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%d of %d bytes: %q", len(got), len(want), got)
	}
	s.Close()
}

// TestStuckTLS: a TLS client that accepts no data within the timeout is distinguished from a broken connection.
func TestStuckTLS(t *testing.T) {
	s, _ := secure(t)
	const timeout = 200 * time.Millisecond
	var err error
	for err == nil {
		_, err = s.Write(make([]byte, 16<<10), timeout)
	}
	if !errors.Is(err, hub.ErrStuck) {
		t.Error(err)
	}
}

// TestSlowTLS: a slow TLS client that keeps accepting data is not disconnected, even if one chunk takes longer than the
// timeout.
func TestSlowTLS(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the system does not report what a client has confirmed")
	}
	t.Parallel() // it mostly waits
	s, client := secure(t)
	// The kernel tells the sender of free space only when half of the buffer is free, which is after about five reads. There are
	// twelve in the timeout, because a busy machine may not run the reader for a while.
	const timeout = time.Second
	const size = 64 << 10
	go func() {
		raw := client.NetConn()
		ticker := time.NewTicker(timeout / 12)
		defer ticker.Stop()
		for range ticker.C {
			if _, err := io.CopyN(io.Discard, raw, 2<<10); err != nil {
				return
			}
		}
	}()
	start := time.Now()
	if n, err := s.Write(make([]byte, size), timeout); n != size || err != nil {
		t.Errorf("wrote %d of %d in %v: %v", n, size, time.Since(start), err)
	}
	if took := time.Since(start); took < timeout*3/2 {
		t.Skipf("the system's buffers took all of it, in %v", took)
	}
}
