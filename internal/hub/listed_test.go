package hub

import (
	"encoding/binary"
	"fmt"
	"testing"
	"testing/synctest"
)

// TestListedNotStarved: a row that changes more often than all others is sent too, while a slow client gets the others.
func TestListedNotStarved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := New(Config{})
		defer closeHub(h)
		o := options()
		o.Format, o.Conflate, o.MaxBacklog = padded{}, true, 64*paddedSize
		c := connect(t, h, o, "a")
		c.open(0)
		key := make(map[uint64]string)
		update := func(row string) {
			m := &Message{Channel: "a", Conflate: NewConflateKey(row), Data: make([]byte, paddedSize)}
			if err := h.Publish(m); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			key[m.Seq] = row
		}
		// In the time in which the client takes one message, each of four rows changes, and one of them very often.
		for range 40 {
			for row := range 4 {
				update(fmt.Sprint(row))
				update("hot")
			}
			c.open(paddedSize)
			synctest.Wait()
		}
		sent := make(map[string]int)
		for at := 0; at+8 <= len(c.got); at += paddedSize {
			sent[key[binary.BigEndian.Uint64(c.got[at:])]]++
		}
		if len(sent) != 5 || sent["hot"] < 5 || sent["0"] < 5 || sent["3"] < 5 {
			t.Errorf("of each row was sent %v", sent)
		}
		c.conn.Done()
	})
}
