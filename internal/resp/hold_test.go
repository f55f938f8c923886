package resp

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"

	"go.uber.org/zap"
)

// Answers that are held back come in the order of the commands, whatever order they are given in.
func TestHold(t *testing.T) {
	held := make(chan Held, 10)
	_, addr := serve(t, Config{Publisher: publishFunc(func(c *Conn, channel, _ []byte) int {
		if string(channel) == "now" {
			return 7
		}
		held <- c.Hold()
		return 99
	})})
	p := dial(t, addr)
	p.send("PUBLISH now a\r\nPUBLISH later a\r\nPING\r\nPUBLISH now a\r\nPUBLISH later a\r\nPUBLISH later a\r\nPING x\r\n")
	p.expect(":7\r\n")
	first, second, third := <-held, <-held, <-held
	third.Answer(3)
	third.Answer(4) // only the first call counts
	second.Answer(2)
	first.Answer(1)
	p.expect(":1\r\n+PONG\r\n:7\r\n:2\r\n:3\r\n$1\r\nx\r\n")
	first.Answer(5) // it is gone
	p.send("PUBLISH later a\r\nQUIT\r\n")
	last := <-held
	last.Answer(8)
	if got := p.rest(); got != ":8\r\n+OK\r\n" {
		t.Errorf("got %q", got)
	}
}

// EXEC answers with one array, also if what is in it is held back.
func TestHoldInTransaction(t *testing.T) {
	held := make(chan Held, 10)
	_, addr := serve(t, Config{Publisher: holding(held)})
	p := dial(t, addr)
	p.send("MULTI\r\nPUBLISH a b\r\nPING\r\nPUBLISH a b\r\nEXEC\r\nPING\r\n")
	p.expect("+OK\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n")
	first, second := <-held, <-held
	second.Answer(2)
	first.Answer(1)
	p.expect("*3\r\n:1\r\n+PONG\r\n:2\r\n+PONG\r\n")
}

// No more answers are held back than may be: the connection is not read meanwhile, and goes on when there is room.
func TestHoldBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var held []Held
		client, _ := piped(t, publishFunc(func(c *Conn, _, _ []byte) int {
			held = append(held, c.Hold())
			return 0
		}))
		go io.WriteString(client, strings.Repeat("PUBLISH a b\r\n", 2*maxHeld))
		synctest.Wait()
		if n := len(held); n < maxHeld || n >= maxHeld+maxBatch {
			t.Errorf("%d answers are held back, not %d", n, maxHeld)
		}
		p := &peer{client, t}
		for n := range 2 * maxHeld {
			held[n].Answer(n)
			p.expect(fmt.Sprintf(":%d\r\n", n))
			synctest.Wait()
		}
	})
}

// Held answers are given by many goroutines, while more are held back.
func TestHoldConcurrently(t *testing.T) {
	_, addr := serve(t, Config{Publisher: publishFunc(func(c *Conn, _, payload []byte) int {
		h, n := c.Hold(), len(payload)
		go h.Answer(n)
		return 0
	})})
	p := dial(t, addr)
	const n = 5000
	var send, want strings.Builder
	for i := range n {
		send.WriteString(array("PUBLISH", "a", strings.Repeat("x", i%20)))
		fmt.Fprintf(&want, ":%d\r\n", i%20)
	}
	go p.send(send.String())
	p.expect(want.String())
}

// piped is a connection to a server that is a pipe, so that a bubble of synctest sees when all wait.
func piped(t *testing.T, p Publisher) (client net.Conn, c *Conn) {
	client, server := net.Pipe()
	s := New(Config{Publisher: p, Log: zap.NewNop()})
	s.add(server)
	for c = range s.conns {
	}
	t.Cleanup(func() {
		client.Close()
		if err := s.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return client, c
}

// A client that sends and does not read costs no more than what may wait for it, also if its answers are held back.
func TestNeverReads(t *testing.T) {
	for _, hold := range []bool{false, true} {
		t.Run(fmt.Sprint("hold ", hold), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client, c := piped(t, publishFunc(func(c *Conn, _, _ []byte) int {
					if hold {
						c.Hold().Answer(0)
					}
					return 0
				}))
				go io.WriteString(client, "PUBLISH a b\r\n"+strings.Repeat("INFO\r\n", 1_000_000))
				synctest.Wait()
				if waiting := c.waiting + len(c.replies); waiting > 3*maxReplies {
					t.Errorf("%d bytes wait", waiting)
				}
			})
		})
	}
}
