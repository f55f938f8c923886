package hub

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// resident returns the process's resident memory, or, where the system does not tell, what Go has of it.
func resident() int64 {
	if p, err := os.ReadFile("/proc/self/statm"); err == nil {
		n, _ := strconv.ParseInt(strings.Fields(string(p))[1], 10, 64)
		return n * int64(os.Getpagesize())
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse)
}

// BenchmarkMaxMemory is what a process takes at most, besides what it takes with its connections and no messages, as a
// part of MaxMemory: it has to stay below 2. One round is a second of publishing as fast as possible.
func BenchmarkMaxMemory(b *testing.B) {
	for _, limit := range []int64{16 << 20, 64 << 20, 256 << 20} {
		for name, attack := range map[string]func(*overload){
			"stuck":      (*overload).stuck,
			"unfinished": (*overload).unfinished,
			"replay":     (*overload).replay,
			"inboxes":    (*overload).inboxes,
			"mixed":      (*overload).mixed,
		} {
			b.Run(fmt.Sprint(name, "/MiB=", limit>>20), func(b *testing.B) {
				h := New(Config{MaxMemory: limit, History: 100})
				defer closeHub(h)
				o := options()
				o.Format, o.MaxBacklog = sampled{hub: h, peak: new(atomic.Int64)}, 1<<20
				runOverload(b, &overload{b: b, hub: h, options: o}, limit, attack)
			})
		}
	}
}

// overload is an attack on a hub.
type overload struct {
	b       *testing.B
	hub     *Hub
	options *ConnOptions
	until   time.Time
	clients []*client
	refused atomic.Int64
}

const attackers = 3000

var garbage []byte // so that it is not on a stack

func runOverload(b *testing.B, a *overload, limit int64, attack func(*overload)) {
	for i := range attackers / 2 {
		a.clients = append(a.clients, a.connect(fmt.Sprint("c", i)))
	}
	debug.FreeOSMemory()
	var own int64 // with the garbage that a process under load has
	a.until = time.Now().Add(time.Second / 4)
	for a.going() {
		garbage = make([]byte, 8<<10)
		own = max(own, resident())
	}
	var peak, held int64
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
				peak, held = max(peak, resident()), max(held, a.hub.Memory())
			}
		}
	}()
	a.until = time.Now().Add(time.Duration(b.N) * time.Second)
	attack(a)
	close(stop)
	<-done
	b.ReportMetric(float64(peak-own)/float64(limit), "resident/max")
	b.ReportMetric(float64(held)/float64(limit), "counted/max")
	b.ReportMetric(float64(a.refused.Load()), "refused")
	s := a.hub.Stats()
	b.ReportMetric(float64(s.Seq), "published")
	b.ReportMetric(float64(s.Closed["memory"]), "closed")
}

func (a *overload) going() bool { return time.Now().Before(a.until) }

// attacker lets go of what it has sent when it is closed, as a socket's reader does.
type attacker struct{ *client }

func (a attacker) Close() {
	a.client.Close()
	a.mu.Lock()
	a.got = nil
	a.mu.Unlock()
}

// few reports whether there may be another connection.
func (a *overload) few() bool {
	if a.hub.Stats().Connections < attackers {
		return true
	}
	time.Sleep(time.Millisecond)
	return false
}

// connect adds one that accepts nothing.
func (a *overload) connect(channels ...string) *client {
	c := newClient()
	c.window = 0
	conn, _, err := a.hub.Connect(Subscriber{Channels: channels}, a.options)
	if err != nil {
		a.refused.Add(1)
		return nil
	}
	c.conn = conn
	conn.Start(attacker{c}, nil)
	return c
}

// publishing has some publish, as fast as they can: by themselves, or as connections that can wait.
func (a *overload) publishing(size int, channel func(i int) string) {
	var wg sync.WaitGroup
	for p := range 4 {
		wg.Go(func() {
			for i := p; a.going(); i += 4 {
				err := a.hub.Publish(&Message{Channel: channel(i), Data: make([]byte, size)})
				if err != nil {
					a.refused.Add(1)
					time.Sleep(time.Millisecond)
				}
			}
		})
	}
	wg.Wait()
}

// stuck: each gets its own messages, and others come for those who are closed.
func (a *overload) stuck() {
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; a.going(); i++ {
			if a.few() && a.connect(fmt.Sprint("c", i%attackers)) == nil {
				time.Sleep(time.Millisecond)
			}
		}
	})
	a.publishing(16<<10, func(i int) string { return fmt.Sprint("c", i%attackers) })
	wg.Wait()
}

// unfinished: each sends all but the end of a large message.
func (a *overload) unfinished() {
	part := make([]byte, 8<<10)
	for i := 0; a.going(); i++ {
		c := a.clients[i%len(a.clients)]
		c.mu.Lock()
		if c.closed {
			c.mu.Unlock()
			continue
		}
		if len(c.got)+len(part) > cap(c.got) {
			c.got = append(make([]byte, 0, 2*(len(c.got)+len(part))), c.got...)
		}
		c.got = append(c.got, part...)
		n, space := len(c.got), cap(c.got)
		c.mu.Unlock()
		if !c.conn.Unfinished(n, space) {
			c.mu.Lock()
			c.got = nil
			c.mu.Unlock()
		}
	}
}

// replay: those who resume accept nothing, and the history goes on.
func (a *overload) replay() {
	var wg sync.WaitGroup
	wg.Go(func() {
		for a.going() {
			if !a.few() {
				continue
			}
			c := newClient()
			c.window = 0
			conn, _, err := a.hub.Connect(Subscriber{Channels: []string{"c0"}, Replay: 63}, a.options)
			if err != nil {
				a.refused.Add(1)
				time.Sleep(time.Millisecond)
				continue
			}
			conn.Leave("c0", nil)
			conn.Start(c, nil)
		}
	})
	a.publishing(16<<10, func(int) string { return "c0" })
	wg.Wait()
}

// inboxes: the loops are slow, and publishers wait.
func (a *overload) inboxes() {
	a.hub.coalesce.Store(int64(50 * time.Millisecond))
	var wg sync.WaitGroup
	for i, c := range a.clients[:min(1000, len(a.clients))] {
		wg.Go(func() {
			for a.going() {
				if a.hub.PublishWait(&Message{Channel: fmt.Sprint("c", i), Data: make([]byte, 16<<10), From: c.conn}) != nil {
					return
				}
			}
		})
	}
	a.publishing(16<<10, func(i int) string { return fmt.Sprint("c", i%attackers) })
	wg.Wait()
}

// mixed: each is on its own selection of channels, so that no two get the same bytes.
func (a *overload) mixed() {
	for i := range attackers / 2 {
		var names []string
		for bit := range 12 {
			if i>>bit&1 != 0 {
				names = append(names, fmt.Sprint("m", bit))
			}
		}
		if len(names) > 1 && a.connect(names...) == nil {
			break
		}
	}
	a.publishing(5<<10, func(i int) string { return fmt.Sprint("m", i%12) })
}
