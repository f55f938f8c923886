package socket

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
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
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dialed, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	dialed.(*net.TCPConn).SetReadBuffer(4 << 10)
	accepted.(*net.TCPConn).SetWriteBuffer(4 << 10)
	server := tls.Server(accepted, &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}})
	client := tls.Client(dialed, &tls.Config{InsecureSkipVerify: true})
	done := make(chan error, 1)
	go func() { done <- server.Handshake() }()
	if err := client.Handshake(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dialed.Close(); accepted.Close() })
	return New(server, nil, nobody{}, nil), client
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
