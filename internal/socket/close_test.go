package socket

import (
	"net"
	"sync"
	"testing"
)

// tcpPair returns both ends of a TCP connection.
func tcpPair(t testing.TB) (server, client *net.TCPConn) {
	t.Helper()
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
	t.Cleanup(func() { dialed.Close(); accepted.Close() })
	return accepted.(*net.TCPConn), dialed.(*net.TCPConn)
}

// TestCloseAtOnce: the hub may close a socket as soon as it has started, which is before it is read.
func TestCloseAtOnce(t *testing.T) {
	poller := NewPoller()
	defer poller.Close()
	for range 50 {
		server, _ := tcpPair(t)
		s := New(server, nil, nobody{}, poller)
		var closed sync.WaitGroup
		closed.Go(s.Close)
		s.Receive()
		closed.Wait()
	}
	if n := poller.Len(); n != 0 {
		t.Errorf("%d sockets are left", n)
	}
}
