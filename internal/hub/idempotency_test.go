package hub

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"
)

// TestKeysModel: random publishers with random keys, against a list of what was published. A key is known for two
// minutes, or until it had to be evicted: its owner then had as many as anyone, to a factor of two.
func TestKeysModel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const memory = 1 << 20
		h := New(Config{MaxMemory: memory})
		m := &keysModel{t: t, r: rand.New(rand.NewPCG(rand.Uint64(), 0)), h: h, limit: h.keyLimitLocked(), known: make(map[modelName]modelKey)}
		for i := range 8000 {
			full, evictedBefore := h.Stats().Keys == m.limit, h.Stats().KeysEvicted
			if !m.publish(i) {
				continue
			}
			s := h.Stats()
			if s.Keys > m.limit || s.KeysEvicted > evictedBefore && !full || h.repeats.bytes() > memory/8 {
				t.Fatalf("%d: %d keys of at most %d, %d evicted, %d bytes", i, s.Keys, m.limit, s.KeysEvicted, h.repeats.bytes())
			}
			if m.r.IntN(4) == 0 {
				time.Sleep(time.Duration(m.r.IntN(int(150 * time.Millisecond))))
			}
		}
		if s := h.Stats(); s.KeysEvicted == 0 || m.evicted == 0 {
			t.Errorf("nothing was evicted: %+v", s)
		}
		time.Sleep(repeatTime + time.Second)
		synctest.Wait()
		if s := h.Stats(); s.Keys != 0 || s.Memory != 0 {
			t.Errorf("when all are old there are %d keys, and %d bytes", s.Keys, s.Memory)
		}
		closeHub(h)
	})
}

// keysModel is a hub, and the keys that were published.
type keysModel struct {
	t       *testing.T
	r       *rand.Rand
	h       *Hub
	limit   int
	known   map[modelName]modelKey
	evicted int
}

type modelName struct{ publisher, channel, key string }

type modelKey struct {
	seq   uint64
	at    time.Time
	owner string
	data  byte
}

// publish publishes a message with a random key, and returns whether it is a new one.
func (m *keysModel) publish(i int) bool {
	t, r := m.t, m.r
	owner := fmt.Sprint("owner", min(r.IntN(6), r.IntN(6), r.IntN(6)))
	n := modelName{fmt.Sprint("publisher", r.IntN(2)) + owner, fmt.Sprint("channel", r.IntN(3)), fmt.Sprint(r.IntN(400))}
	message := &Message{Publisher: n.publisher, Channel: n.channel, Key: n.key, Owner: owner, Data: []byte{byte(r.IntN(10) / 9)}}
	before, ok := m.known[n]
	ok = ok && time.Since(before.at) < repeatTime
	last := m.h.Stats().Seq
	err := m.h.Publish(message)
	switch {
	case err == ErrKeyReused:
		if !ok || before.data == message.Data[0] {
			t.Fatalf("%d: the key %v is said to be another message's", i, n)
		}
		return false
	case err != nil:
		t.Fatal(err)
	case message.Seq <= last:
		if !ok || message.Seq != before.seq || !message.Time.Equal(before.at) || before.data != message.Data[0] {
			t.Fatalf("%d: %v is said to be message %d", i, n, message.Seq)
		}
		return false
	case ok: // it was evicted
		if most := m.count(before.owner); most < m.limit/6/2 {
			t.Fatalf("%d: a key was evicted of an owner that has %d of %d", i, most, m.limit)
		}
		m.evicted++
	}
	m.known[n] = modelKey{message.Seq, message.Time, owner, message.Data[0]}
	return true
}

// count returns how many keys an owner has.
func (m *keysModel) count(owner string) (n int) {
	for _, k := range m.known {
		if k.owner == owner && time.Since(k.at) < repeatTime {
			n++
		}
	}
	return n
}

// TestKeysOfOthers: nobody makes the hub forget the keys of one who has fewer.
func TestKeysOfOthers(t *testing.T) {
	h := New(Config{MaxMemory: 1 << 20})
	defer closeHub(h)
	send := func(owner, key string) *Message {
		m := &Message{Channel: "a", Publisher: "route:", Owner: owner, Key: key}
		if err := h.Publish(m); err != nil {
			t.Fatal(err)
		}
		return m
	}
	first := send("ann", "1")
	for i := range 3 * h.keyLimitLocked() {
		send("eve", fmt.Sprint("eve", i))
	}
	if m := send("ann", "1"); m.Seq != first.Seq {
		t.Errorf("ann's message was published again")
	}
	s := h.Stats()
	if s.Keys != h.keyLimitLocked() || s.KeysEvicted != uint64(2*h.keyLimitLocked()+1) {
		t.Errorf("%d keys, %d evicted", s.Keys, s.KeysEvicted)
	}
	h.Configure(Config{MaxMemory: 1 << 19})
	if s := h.Stats(); s.Keys != 0 || s.Memory != 0 {
		t.Errorf("with a lower limit there are %d keys, and %d bytes", s.Keys, s.Memory)
	}
}

// TestKeysInBatch: a key twice in one batch is one message, or an error.
func TestKeysInBatch(t *testing.T) {
	h := New(Config{})
	defer closeHub(h)
	a, b, c := &Message{Channel: "a", Key: "k"}, &Message{Channel: "a"}, &Message{Channel: "a", Key: "k"}
	if err := h.Publish(a, b, c); err != nil || a.Seq != 1 || b.Seq != 2 || c.Seq != 1 || c.ID() != a.ID() {
		t.Errorf("%v: %d, %d, %d", err, a.Seq, b.Seq, c.Seq)
	}
	other := &Message{Channel: "a", Key: "new"}
	if err := h.Publish(other, &Message{Channel: "a", Key: "new", Event: "x"}); err != ErrKeyReused || other.Seq != 0 {
		t.Errorf("two messages with one key: %v", err)
	}
}

// TestKeysAtTheEdge: whether a key is old is decided once, by a clock that does not go back, though publishers
// overtake each other on their way to the log.
func TestKeysAtTheEdge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := New(Config{})
		m := publish(t, h, "a")
		h.mu.Lock()
		h.seqTime = m.Time.Add(time.Second) // one that was faster
		h.mu.Unlock()
		if m := publish(t, h, "a"); m.Time.Before(h.seqTime) {
			t.Errorf("the time goes back")
		}
		closeHub(h)
	})
}

// BenchmarkKeys is what a message with a key costs, where so many are known.
func BenchmarkKeys(b *testing.B) {
	for _, known := range []int{24_000, 240_000, 2_400_000} {
		b.Run(fmt.Sprint("known=", known), func(b *testing.B) {
			h := New(Config{})
			defer closeHub(h)
			keys := make([]string, known+b.N)
			for i := range keys {
				keys[i] = fmt.Sprint("key", i)
			}
			for _, k := range keys[:known] {
				h.Publish(&Message{Channel: "a", Key: k})
			}
			perKey := float64(h.Memory()) / float64(known)
			b.ResetTimer()
			for _, k := range keys[known:] {
				h.Publish(&Message{Channel: "a", Key: k})
			}
			b.ReportMetric(perKey, "B/key")
		})
	}
}

// BenchmarkKeyedBatch is how long a batch of messages with keys holds the lock.
func BenchmarkKeyedBatch(b *testing.B) {
	for _, n := range []int{1 << 12, 1 << 14, 1 << 16} {
		b.Run(fmt.Sprint("messages=", n), func(b *testing.B) {
			h := New(Config{})
			defer closeHub(h)
			for i := range 1000 {
				connect(b, h, options(), fmt.Sprint("c", i))
			}
			var locked time.Duration
			for round := range b.N {
				ms := make([]*Message, n)
				for i := range ms {
					ms[i] = &Message{Channel: fmt.Sprint("c", i%1000), Data: []byte("x"), Key: fmt.Sprint(round, "-", i)}
				}
				keys, _ := h.repeats.keysOf(ms)
				h.mu.Lock()
				start := time.Now()
				_, ok := h.fitsLocked(ms)
				wake, err := h.appendLocked(ms, keys, start)
				locked += time.Since(start)
				h.mu.Unlock()
				h.wake(wake)
				if !ok || err != nil {
					b.Fatal("does not fit", err)
				}
				h.onLoops(func(*loop) {})
			}
			b.ReportMetric(float64(locked.Microseconds())/1e3/float64(b.N), "ms-locked")
		})
	}
}
