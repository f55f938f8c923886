package hub

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"
)

// TestModel runs random subscribes, publishes and closes against the simplest model there is: a list of what each
// connection must have got, kept by the one who does it all in turn.
func TestModel(t *testing.T) {
	seed := rand.Uint64()
	for round := range 200 {
		if !t.Run(fmt.Sprint("seed ", seed, ",", round), func(t *testing.T) { runModel(t, rand.New(rand.NewPCG(seed, uint64(round)))) }) {
			return
		}
	}
}

func runModel(t *testing.T, r *rand.Rand) {
	h := New(Options{})
	defer closeHub(h)
	names := []string{"a", "b", "c", "d", "e"}
	type expected struct {
		*client
		channels []string
		want     []uint64
		noEcho   bool
	}
	var open, left []*expected
	for range 400 {
		switch k := r.IntN(20); {
		case k < 3:
			e := &expected{client: newClient(), noEcho: r.IntN(2) == 0}
			for _, i := range r.Perm(len(names))[:r.IntN(4)] {
				e.channels = append(e.channels, names[i])
			}
			o := options()
			o.Format = seqs{name: names[r.IntN(2)]}
			o.MaxBacklog = 1 << 20
			e.blocks = r.IntN(3) == 0
			if r.IntN(3) == 0 {
				own := rand.New(rand.NewPCG(r.Uint64(), 0))
				e.random = own.IntN
			}
			conn, _, err := h.Connect(Subscriber{Channels: e.channels}, o)
			if err != nil {
				t.Fatal(err)
			}
			e.conn = conn
			if r.IntN(2) == 0 { // what is published before the start waits
				m := publish(t, h, "a")
				for _, o := range append(open, e) {
					if slices.Contains(o.channels, "a") {
						o.want = append(o.want, m.Seq)
					}
				}
			}
			conn.Start(e, nil)
			open = append(open, e)
		case k < 5 && len(open) > 0:
			i := r.IntN(len(open))
			e := open[i]
			open = slices.Delete(open, i, i+1)
			left = append(left, e)
			e.conn.Close(ReasonClient, "")
		case k < 8 && len(open) > 0:
			e := open[r.IntN(len(open))]
			name := names[r.IntN(len(names))]
			if i := slices.Index(e.channels, name); i >= 0 && r.IntN(2) == 0 {
				e.channels = slices.Delete(slices.Clone(e.channels), i, i+1)
				if err := e.conn.Leave(name, nil); err != nil {
					t.Fatal(err)
				}
				if err := e.conn.Leave(name, nil); err != ErrNotJoined {
					t.Fatal(err)
				}
				continue
			} else if i < 0 {
				e.channels = append(slices.Clone(e.channels), name)
			}
			if err := e.conn.Join(name, "", func(Welcome, []*Message) []byte { return nil }); err != nil {
				t.Fatal(err)
			}
		default:
			var ms []*Message
			var from *expected
			if len(open) > 0 && r.IntN(4) == 0 {
				from = open[r.IntN(len(open))]
			}
			for range 1 + r.IntN(3)*r.IntN(3) {
				m := &Message{Channel: names[r.IntN(len(names))], Data: make([]byte, r.IntN(10))}
				if from != nil {
					m.From, m.NoEcho = from.conn, from.noEcho
				}
				ms = append(ms, m)
			}
			if err := h.Publish(ms...); err != nil {
				t.Fatal(err)
			}
			for _, m := range ms {
				subscribers := 0
				for _, e := range open {
					if !slices.Contains(e.channels, m.Channel) {
						continue
					}
					subscribers++
					if e != from || !e.noEcho {
						e.want = append(e.want, m.Seq)
					}
				}
				if m.Subscribers != subscribers {
					t.Fatalf("message %d had %d subscribers, not %d", m.Seq, subscribers, m.Subscribers)
				}
			}
		}
	}
	for _, e := range open {
		if got, _ := e.wait(len(e.want)); !slices.Equal(got, e.want) {
			t.Fatalf("an open connection on %q got %v, not %v", e.channels, got, e.want)
		}
	}
	for _, e := range left {
		got, why := e.wait(len(e.want) + 1)
		if !slices.Equal(got, e.want) || why != ReasonClient {
			t.Fatalf("a closed connection on %q got %v and %v, not %v", e.channels, got, why, e.want)
		}
		e.conn.Done()
	}
	for _, e := range open {
		e.conn.Done()
	}
}

// TestConcurrent has publishers, and connections that come and go, all at once: what a connection gets is what was
// published on its channels in one stretch of the log, in its order.
func TestConcurrent(t *testing.T) {
	h := New(Options{})
	names := []string{"a", "b", "c"}
	const publishers, each, readers, rounds = 4, 2000, 8, 40

	var mu sync.Mutex
	channelOf := make(map[uint64]string)
	var wg sync.WaitGroup
	for range publishers {
		wg.Go(func() {
			for range each {
				m := &Message{Channel: names[rand.IntN(len(names))], Data: []byte("x")}
				if err := h.Publish(m); err != nil {
					t.Error(err)
				}
				mu.Lock()
				channelOf[m.Seq] = m.Channel
				mu.Unlock()
			}
		})
	}
	type visit struct {
		channels []string
		since    uint64
		got      []uint64
	}
	var visits []visit
	for range readers {
		wg.Go(func() {
			for range rounds {
				channels := names[:1+rand.IntN(len(names))]
				o := options()
				o.MaxBacklog = 1 << 30
				c := connect(t, h, o, channels...)
				c.wait(rand.IntN(50))
				c.conn.Close(ReasonClient, "")
				c.mu.Lock()
				for !bytes.HasSuffix(c.got, seqs{}.Close(ReasonClient, "")) {
					c.changed.Wait()
				}
				c.mu.Unlock()
				c.conn.Done()
				got, _ := c.wait(0)
				mu.Lock()
				visits = append(visits, visit{channels, c.conn.Since(), got})
				mu.Unlock()
			}
		})
	}
	done := make(chan struct{})
	var serving sync.WaitGroup
	serving.Go(func() { // so that readers who wait for messages after the publishers' last are served
		for {
			select {
			case <-done:
				return
			default:
				m := publish(t, h, "a")
				mu.Lock()
				channelOf[m.Seq] = "a"
				mu.Unlock()
				time.Sleep(time.Millisecond)
			}
		}
	})
	wg.Wait()
	close(done)
	serving.Wait()
	closeHub(h)
	for _, v := range visits {
		if len(v.got) == 0 {
			continue
		}
		var want []uint64
		for seq := v.since + 1; seq <= v.got[len(v.got)-1]; seq++ {
			if slices.Contains(v.channels, channelOf[seq]) {
				want = append(want, seq)
			}
		}
		if !slices.Equal(v.got, want) {
			t.Fatalf("on %q since %d: got %v, not %v", v.channels, v.since, v.got, want)
		}
	}
}
