package backend

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/protocol/raw"
	"github.com/caddy-broadcast/caddy-broadcast/internal/resp"
)

// pipes is a listener whose connections are pipes, so that a bubble of synctest sees when all wait.
type pipes chan net.Conn

func (p pipes) Accept() (net.Conn, error) {
	c, ok := <-p
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}
func (p pipes) Close() error { return nil }
func (pipes) Addr() net.Addr { return &net.TCPAddr{} }

// stuck is an observer that keeps a loop from doing anything until it is let go.
type stuck struct{ let chan struct{} }

func (s stuck) Subscribed(*hub.Conn, string) { <-s.let }
func (stuck) Unsubscribed(*hub.Conn, string) {}
func (stuck) Ended(*hub.Conn, hub.Reason)    {}

// TestFull: while the hub is full, the answers to who publishes wait, and nothing is lost.
func TestFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hub.New(hub.Config{MaxInbox: 1})
		defer h.Close(hub.ReasonRestart, "", 0, time.Millisecond)
		q, err := (&Queue{Publish: []string{"news"}}).settings()
		if err != nil {
			t.Fatal(err)
		}
		i := New(h)
		s := resp.New(resp.Config{Publisher: &taker{i, q}, Log: zap.NewNop()})
		l := make(pipes)
		go s.Serve(l)
		client, server := net.Pipe()
		l <- server
		let := make(chan struct{})
		o := &hub.ConnOptions{
			Format: raw.Format{}, PingInterval: time.Hour, WriteTimeout: time.Second, MaxBacklog: hub.MinBacklog, Observer: stuck{let},
		}
		conn, _, err := h.Connect(hub.Subscriber{Channels: []string{"news"}}, o)
		if err != nil {
			t.Fatal(err)
		}
		answers := make(chan string, 100)
		go func() {
			for in := bufio.NewReader(client); ; {
				line, err := in.ReadString('\n')
				if err != nil {
					return
				}
				answers <- line
			}
		}()
		const n = 5
		go func() {
			for range n { // each is a batch of its own
				io.WriteString(client, "PUBLISH news x\r\n")
			}
		}()
		synctest.Wait()
		if len(answers) == n {
			t.Error("all are answered")
		}
		close(let)
		for range n {
			if got := <-answers; got != ":1\r\n" {
				t.Errorf("%q", got)
			}
		}
		synctest.Wait()
		if stats := i.Stats(); stats.Messages["ok"] != n {
			t.Error(stats)
		}
		conn.Close(hub.ReasonRestart, "")
		conn.Done()
		client.Close()
		close(l)
		s.Shutdown(context.Background())
	})
}

// TestBatch: what comes at once is one batch, but each message counts for itself, and commands have their place between them.
func TestBatch(t *testing.T) {
	h := hub.New(hub.Config{History: 10})
	defer h.Close(hub.ReasonRestart, "", 0, time.Millisecond)
	q, err := (&Queue{Publish: []string{"news"}}).settings()
	if err != nil {
		t.Fatal(err)
	}
	logger = zap.NewNop // what is wrong is told
	i := New(h)
	b := &batch{taker: &taker{i, q}}
	emit := func(args string) { b.add("socketio", []byte(`{"method": "emit", "binary": false, `+args+`}`)) }
	emit(`"event": "a", "data": [1], "room": ["x", "y"]`)
	b.add("news", []byte("b"))
	emit(`"event": "c", "data": [NaN]`)
	emit(`"event": "d", "data": [1], "room": "` + strings.Repeat("d", 250) + `", "namespace": "/"`)
	b.add("socketio", []byte(`{"method": "close_room", "room": "x"}`))
	if n := len(b.messages); n != 0 {
		t.Errorf("%d messages come after the command", n)
	}
	b.add("other", []byte("e"))
	b.add("news", []byte("f"))
	b.publish()
	want := map[string]uint64{"ok": 5, "invalid": 1, "channel": 1, "namespace": 0, "ignored": 0, "unavailable": 0}
	if got := i.Stats().Messages; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Error(got)
	}
	if n := h.Stats().Seq; n != 5 {
		t.Errorf("%d messages are published", n)
	}
}
