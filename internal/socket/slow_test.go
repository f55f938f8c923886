package socket

import (
	"bytes"
	"errors"
	"io"
	"runtime"
	"testing"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
)

// plainFormat has each message as its data.
type plainFormat struct{}

const goodbye = "goodbye"

func (plainFormat) Append(dst []byte, run []*hub.Message) []byte {
	for _, m := range run {
		dst = append(dst, m.Data...)
	}
	return dst
}

func (plainFormat) Ping() []byte                    { return nil }
func (plainFormat) Close(hub.Reason, string) []byte { return []byte(goodbye) }
func (plainFormat) Gap([]string) []byte             { return nil }

// impatient is a socket that waits only a moment, until its client was found stuck once.
type impatient struct {
	*Socket
	stuck bool
}

func (s *impatient) Write(p []byte, _ time.Duration) (int, error) {
	timeout := time.Minute
	if !s.stuck {
		timeout = 50 * time.Millisecond
	}
	n, err := s.Socket.Write(p, timeout)
	s.stuck = s.stuck || n == 0 && errors.Is(err, hub.ErrStuck)
	return n, err
}

// TestCarrierTooSlow: a TLS client that was stuck, and reads again, is sent whole messages, and then why it is closed: what is
// encrypted already is not dropped in favor of that.
func TestCarrierTooSlow(t *testing.T) {
	s, client := secure(t)
	h := hub.New(hub.Config{})
	defer h.Close(hub.ReasonRestart, "", 0, 0)
	o := &hub.ConnOptions{Format: plainFormat{}, PingInterval: time.Hour, WriteTimeout: time.Minute, MaxBacklog: 1 << 20}
	conn, _, err := h.Connect(hub.Subscriber{Channels: []string{"a"}}, o)
	if err != nil {
		t.Fatal(err)
	}
	conn.Start(&impatient{Socket: s}, nil)
	const size = 1000
	for i := range 200 {
		if err := h.Publish(&hub.Message{Channel: "a", Data: bytes.Repeat([]byte{byte(i % 128)}, size)}); err != nil {
			t.Fatal(err)
		}
	}
	for deadline := time.Now().Add(20 * time.Second); h.Subscribers("a") > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it is not closed")
		}
	}
	client.SetReadDeadline(time.Now().Add(20 * time.Second))
	var got []byte
	buf := make([]byte, 32<<10)
	for err == nil && !bytes.HasSuffix(got, []byte(goodbye)) {
		var n int
		n, err = client.Read(buf)
		got = append(got, buf[:n]...)
	}
	if err != nil && err != io.EOF {
		t.Error(err)
	}
	conn.Done()
	got, ok := bytes.CutSuffix(got, []byte(goodbye))
	if !ok || len(got)%size != 0 || len(got) == 0 {
		t.Fatalf("%d bytes, said goodbye: %v", len(got), ok)
	}
	for i := range len(got) / size {
		if !bytes.Equal(got[i*size:][:size], bytes.Repeat([]byte{byte(i % 128)}, size)) {
			t.Fatalf("message %d is not what was sent", i)
		}
	}
}

// TestSlowPlain: a slow client without TLS that keeps accepting data is not found stuck, even if the system has no room for as long
// as the timeout.
func TestSlowPlain(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the system does not report what a client has confirmed")
	}
	t.Parallel() // it mostly waits
	server, client := tcpPair(t)
	client.SetReadBuffer(4 << 10)
	server.SetWriteBuffer(256 << 10)
	s := New(server, nil, nobody{}, nil)
	// The kernel tells the sender of free space only when a third of the buffer is free.
	const timeout = time.Second
	done := make(chan struct{})
	defer func() { client.Close(); <-done }()
	fill := make([]byte, 16<<10)
	for n := 1; n > 0; {
		var err error
		if n, err = s.TryWrite(fill); err != nil {
			t.Fatal(err)
		}
	}
	go func() {
		defer close(done)
		ticker := time.NewTicker(timeout / 12)
		defer ticker.Stop()
		for range ticker.C {
			if _, err := io.CopyN(io.Discard, client, 2<<10); err != nil {
				return
			}
		}
	}()
	if n, err := s.Write(fill, timeout); n == 0 {
		t.Errorf("it is found stuck: %v", err)
	}
}
