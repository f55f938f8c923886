package presence_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/presence"
)

// TestMemory: members count in max_memory. Those for whom there is no room are closed, clients without a user need none, publishers
// are not kept out, and nothing is left when all have gone.
func TestMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit = 1 << 20
		h := hub.New(hub.Config{MaxMemory: limit})
		o := options(presence.NewTable(h))
		var conns []*hub.Conn
		for i := range 5000 {
			c, _ := join(t, h, o, fmt.Sprint("user", i))
			conns = append(conns, c)
			if i%100 == 99 {
				time.Sleep(2 * time.Second)
			}
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		list := h.Connections(hub.Filter{}, 5000)
		if n := len(list); n < limit/8/512 || n > limit/8/192 {
			t.Errorf("%d members", n)
		}
		if n := h.Memory(); n > limit/8+1024 || n < limit/10 {
			t.Errorf("%d bytes of %d", n, limit)
		}
		if err := h.Publish(&hub.Message{Channel: "room", Data: []byte("x")}); err != nil {
			t.Error(err)
		}
		// A user who is there already may have more connections.
		again, _ := join(t, h, o, list[0].User)
		nobody, _ := join(t, h, o, "")
		other, _ := join(t, h, o, "other")
		synctest.Wait()
		if again.Gone() || nobody.Gone() {
			t.Error("a client who needs no room was closed")
		}
		if !other.Gone() {
			t.Error("a client for whom there is no room was not closed")
		}
		for _, c := range append(conns, again, nobody) {
			c.Done()
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := h.Memory(); n != 0 {
			t.Errorf("%d bytes are left", n)
		}
		h.Close(hub.ReasonRestart, "", 0, time.Second)
	})
}
