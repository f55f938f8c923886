package socket

import (
	"runtime"
	"testing"
	"time"
	"weak"
)

// ender is a receiver that is closed when its socket has ended.
type ender chan struct{}

func (ender) Received([]byte) bool { return true }
func (e ender) Ended()             { close(e) }

// TestEndedSockets: an idle poller does not keep sockets that have ended in memory.
func TestEndedSockets(t *testing.T) {
	poller := NewPoller()
	if poller == nil {
		t.Fatal("there is no epoll")
	}
	defer poller.Close()
	end := func() weak.Pointer[Socket] {
		server, client := tcpPair(t)
		ended := make(ender)
		s := New(server, nil, ended, poller)
		s.Receive()
		client.Close()
		<-ended
		s.Close()
		return weak.Make(s)
	}
	p := end()
	for deadline := time.Now().Add(10 * time.Second); p.Value() != nil; runtime.GC() {
		if time.Now().After(deadline) {
			t.Fatal("the socket is still there")
		}
	}
}
