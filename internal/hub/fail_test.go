package hub

import (
	"encoding/binary"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// halfCloser is a client of which only the writing can be ended.
type halfCloser struct {
	*client
	after int // how much had been written by then; -1 if it was not
}

func (c *halfCloser) CloseWrite() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.after = len(c.got)
}

// state returns after how many bytes its writing was ended, how many it was sent, and whether it is closed.
func (c *halfCloser) state() (after, sent int, closed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.after, len(c.got), c.closed
}

// TestFail: after the close frame the connection is ended by half, and not waited for longer than for some seconds.
func TestFail(t *testing.T) {
	t.Run("written by the loop", func(t *testing.T) { testFail(t, false) })
	t.Run("written by a flusher", func(t *testing.T) { testFail(t, true) })
}

func testFail(t *testing.T, slow bool) {
	synctest.Test(t, func(t *testing.T) {
		h := New(Config{})
		c := &halfCloser{newClient(), -1}
		c.blocks = slow
		conn, _, err := h.Connect(Subscriber{Channels: []string{"a"}}, options())
		if err != nil {
			t.Fatal(err)
		}
		conn.Start(c, nil)
		publish(t, h, "a")
		conn.Fail(ReasonProtocol, "")
		synctest.Wait()
		if c.after != 16 || binary.BigEndian.Uint64(c.got[8:]) != closeMark|uint64(ReasonProtocol) || c.closed || h.Stats().Connections != 1 {
			t.Errorf("%q, ended after %d, closed %v", c.got, c.after, c.closed)
		}
		time.Sleep((maxLinger + 1) * time.Second)
		synctest.Wait()
		if !c.closed || h.Stats().Connections != 0 {
			t.Errorf("closed %v", c.closed)
		}
		closeHub(h)
	})
}

// TestFailAtOnce: a connection that cannot be ended by half is closed after the close frame.
func TestFailAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := New(Config{})
		whole := connect(t, h, options(), "a")
		whole.conn.Fail(ReasonProtocol, "")
		synctest.Wait()
		if !whole.closed || len(whole.got) != 8 {
			t.Errorf("%q, closed %v", whole.got, whole.closed)
		}
		closeHub(h)
	})
}

// TestFailWhileClosing: one that is closing already is not waited for any more, and keeps its reason.
func TestFailWhileClosing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := New(Config{})
		c := &halfCloser{newClient(), -1}
		conn, _, _ := h.Connect(Subscriber{}, options())
		conn.Start(c, nil)
		conn.Close(ReasonRestart, "")
		conn.Fail(ReasonProtocol, "")
		synctest.Wait()
		if c.after != 8 || binary.BigEndian.Uint64(c.got) != closeMark|uint64(ReasonRestart) {
			t.Errorf("%q, ended after %d", c.got, c.after)
		}
		conn.Done()
		synctest.Wait()
		closeHub(h)
	})
}

// TestFailInFrame: a peer that was stopped in the middle of a frame can reply before the connection is ended by half. If it
// does not, it is ended as after a protocol error.
func TestFailInFrame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := New(Config{})
		fail := func() (*Conn, *halfCloser) {
			c := &halfCloser{newClient(), -1}
			conn, _, err := h.Connect(Subscriber{}, options())
			if err != nil {
				t.Fatal(err)
			}
			conn.Start(c, nil)
			conn.Fail(ReasonTooBig, "")
			synctest.Wait()
			if after, sent, closed := c.state(); after >= 0 || sent != 8 || closed {
				t.Errorf("%d bytes, ended after %d, closed %v", sent, after, closed)
			}
			return conn, c
		}
		conn, c := fail()
		conn.ReplyClose(nil)
		conn.Done()
		synctest.Wait()
		if after, _, closed := c.state(); after >= 0 || !closed {
			t.Errorf("replied: ended after %d, closed %v", after, closed)
		}
		_, c = fail()
		time.Sleep(replyTime * time.Second)
		synctest.Wait()
		if after, _, closed := c.state(); after != 8 || closed {
			t.Errorf("silent: ended after %d, closed %v", after, closed)
		}
		time.Sleep((maxLinger + 1) * time.Second)
		synctest.Wait()
		if _, _, closed := c.state(); !closed || h.Stats().Connections != 0 {
			t.Errorf("silent: closed %v", closed)
		}
		closeHub(h)
	})
}

// TestReplies: so many replies wait, in order, and where there are more, the newest takes the place of the one before it.
func TestReplies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := New(Config{})
		c := connect(t, h, options())
		synctest.Wait()
		var want []uint64
		reply := func(seq uint64) { c.conn.Reply(binary.BigEndian.AppendUint64(nil, seq)) }
		for range 3 { // again and again, and each time there is nothing left
			busy := make(chan struct{})
			h.enqueue(c.conn.loop, entry{op: opCall, arg: func() { <-busy }})
			synctest.Wait()
			for i := range uint64(maxReplies + 10) {
				reply(i)
				if i < maxReplies-1 || i == maxReplies+9 {
					want = append(want, i)
				}
			}
			close(busy)
			synctest.Wait()
			if c.conn.replies != nil {
				t.Errorf("%d are left", len(c.conn.replies))
			}
		}
		got, _ := c.wait(len(want))
		if !slices.Equal(got, want) {
			t.Errorf("got %v, not %v", got, want)
		}
		closeHub(h)
	})
}
