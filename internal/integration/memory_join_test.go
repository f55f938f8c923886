package integration

import (
	"fmt"
	"net"
	"runtime"
	"runtime/metrics"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
)

// TestJoinsWithinMemory: what clients are replayed when they join counts for max_memory from the moment it is made, also
// while it waits for room, and though none of them takes anything.
func TestJoinsWithinMemory(t *testing.T) {
	const limit, clients = 16 << 20, 500
	s := caddytest.Start(t, `broadcast {
			max_memory 16MiB
			history 10000
		}
		---
		broadcast /ws {
			join *
			max_message 64KiB
		}`)
	id := s.Publish("channel=h", "x")
	epoch, _, _ := strings.Cut(id, "-")
	data := strings.Repeat("x", 10_000)
	for range 90 {
		s.Publish("channel=h", data)
	}
	var conns []net.Conn
	dialer := ws.Dialer{Protocols: []string{"broadcast.v1"}}
	for range clients {
		c, _, _, err := dialer.Dial(t.Context(), "ws://"+s.Addr+"/ws")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		conns = append(conns, c)
	}
	pair := fmt.Sprintf(`{"join":{"channel":"h","last_id":"%s-1"}},{"leave":{"channel":"h"}}`, epoch)
	frame := ws.MustCompileFrame(ws.MaskFrame(ws.NewTextFrame([]byte("[" + pair + strings.Repeat(","+pair, 127) + "]"))))
	runtime.GC()
	before := heap()
	stop := make(chan struct{})
	peak := make(chan uint64)
	go func() {
		most := uint64(0)
		for {
			select {
			case <-stop:
				peak <- most
				return
			case <-time.After(2 * time.Millisecond):
				most = max(most, heap())
			}
		}
	}()
	var all sync.WaitGroup
	for _, c := range conns {
		all.Go(func() { c.Write(frame) })
	}
	all.Wait()
	time.Sleep(4 * time.Second)
	close(stop)
	most := <-peak - before
	t.Logf("peak %d MiB", most>>20)
	// Both ends of the connections are in this process too, with a frame of 10 KiB each that is parsed. What joins took
	// before they were counted was 458 MiB.
	if most > 2*limit+clients*(32<<10) {
		t.Errorf("%d MiB more are alive, with a max_memory of %d", most>>20, limit>>20)
	}
}

func heap() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}
