package hub

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// restarted closes a hub and returns the next one, which goes on where it was.
func restarted(t *testing.T, h *Hub, c Config) *Hub {
	t.Helper()
	closeHub(h)
	next := New(c)
	t.Cleanup(func() { closeHub(next) })
	if err := next.Restore(h.Save(nil)); err != nil {
		t.Fatal(err)
	}
	return next
}

// missed returns what a subscriber gets that comes back, and of which channels it is told that something is missing.
func missed(h *Hub, channels []string, id string) (seqs []uint64, gaps []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	ms, w := h.replayFromLocked(&hearer{}, channels, id, 0, 1<<20)
	slices.SortFunc(ms, bySeq)
	for _, m := range ms {
		seqs = append(seqs, m.Seq)
	}
	return seqs, w.Gaps
}

// TestRestore: after a restart clients get from any position what they would have got without it, or are told of a gap; and
// positions go on.
func TestRestore(t *testing.T) {
	seed := rand.Uint64()
	for round := range 200 {
		r := rand.New(rand.NewPCG(seed, uint64(round)))
		o := Config{History: r.IntN(6), HistoryBytes: 20 * messageOverhead, Histories: randomRules(r)}
		h := New(o)
		for range r.IntN(60) {
			m := &Message{Channel: historyChannels[r.IntN(4)], Data: make([]byte, r.IntN(messageOverhead)), Kind: Binary}
			if r.IntN(4) == 0 {
				m.Event = "e"
			}
			if r.IntN(3) == 0 {
				m.Conflate = NewConflateKey(fmt.Sprint("row:", r.IntN(2)))
			}
			if err := h.Publish(m); err != nil {
				t.Fatal(err)
			}
		}
		next := restarted(t, h, o)
		if next.epoch != h.epoch || next.seq != h.seq || next.history.bytes.Load() != h.history.bytes.Load() {
			t.Fatalf("seed %d, round %d: restored %v of %v", seed, round, next.Stats(), h.Stats())
		}
		for after := range h.seq + 1 {
			for _, channel := range historyChannels {
				id := FormatID(h.epoch, after)
				want, gaps := missed(h, []string{channel}, id)
				got, more := missed(next, []string{channel}, id)
				if !slices.Equal(got, want) || !slices.Equal(gaps, more) {
					t.Fatalf("seed %d, round %d, %s after %d: %v, gaps %v, not %v, %v", seed, round, channel, after, got, more, want, gaps)
				}
			}
		}
		m := &Message{Channel: "a", Conflate: NewConflateKey("row:1")} // replaces one that was restored
		if err := next.Publish(m); err != nil || m.Seq != h.seq+1 || m.epoch() != h.epoch {
			t.Fatal(m.ID(), err)
		}
		next.checkKept(t, "a")
	}
}

// TestRestoreWithOtherOptions: what is restored is what the options keep that the next process has.
func TestRestoreWithOtherOptions(t *testing.T) {
	h := New(Config{History: 10})
	for range 5 {
		if err := h.Publish(&Message{Channel: "a"}, &Message{Channel: "b"}); err != nil {
			t.Fatal(err)
		}
	}
	next := restarted(t, h, Config{History: 2, Histories: []HistoryRule{{Matches: func(s string) bool { return s == "b" }}}})
	if s := next.Stats(); s.Kept != 2 {
		t.Errorf("%d messages are kept", s.Kept)
	}
	if got, gaps := missed(next, []string{"a"}, FormatID(h.epoch, 6)); fmt.Sprint(got, gaps) != "[7 9] []" {
		t.Error(got, gaps)
	}
	for _, channel := range []string{"a", "b"} {
		if _, gaps := missed(next, []string{channel}, FormatID(h.epoch, 4)); len(gaps) != 1 {
			t.Errorf("no gap on %s", channel)
		}
	}
}

// TestRestoreKeys: a publisher that retries across a restart does not publish twice.
func TestRestoreKeys(t *testing.T) {
	h := New(Config{})
	publish := func(h *Hub, publisher, text string) (uint64, error) {
		m := &Message{Channel: "a", Data: []byte(text), Key: "k", Publisher: publisher}
		err := h.Publish(m)
		return m.Seq, err
	}
	for _, publisher := range []string{"ann", "bob"} {
		if _, err := publish(h, publisher, "x"); err != nil {
			t.Fatal(err)
		}
	}
	next := restarted(t, h, Config{})
	if seq, err := publish(next, "bob", "x"); err != nil || seq != 2 {
		t.Errorf("the same again is %d, %v", seq, err)
	}
	if _, err := publish(next, "ann", "y"); err != ErrKeyReused {
		t.Errorf("another one with the key: %v", err)
	}
	if seq, err := publish(next, "eve", "y"); err != nil || seq != 3 {
		t.Errorf("another publisher's is %d, %v", seq, err)
	}
}

// TestRestoreEmits: what only Socket.IO clients get is restored, and what is kept for one of them.
func TestRestoreEmits(t *testing.T) {
	h := New(Config{History: 10})
	h.mu.Lock()
	h.names, h.namesOf = map[string]*named{"n": {kept: &channel{name: toChannel}, origin: h.origin}}, map[*Conn][]string{}
	h.mu.Unlock()
	for _, e := range []*Emit{{Args: []byte(`["x"]`), Except: []string{"m"}}, {To: "n"}} {
		if err := h.Publish(&Message{Channel: "a", Event: "e", Data: []byte("1"), Kind: JSON, Emit: e}); err != nil {
			t.Fatal(err)
		}
	}
	next := restarted(t, h, Config{History: 10})
	m := next.channels["a"].newest()
	if m.Emit == nil || string(m.Emit.Args) != `["x"]` || m.Emit.Except[0] != "m" || m.Emit.id != h.channels["a"].newest().Emit.id {
		t.Errorf("%+v", m.Emit)
	}
	n := next.names["n"]
	if n == nil || len(n.kept.history) != 1 || n.kept.newest().Emit.To != "n" || n.kept.newest().Channel != "a" {
		t.Errorf("%+v", n)
	}
}

// TestRestoreDamaged: nothing is restored of a file that lacks its end.
func TestRestoreDamaged(t *testing.T) {
	h := New(Config{History: 10})
	for i := range 20 {
		if err := h.Publish(&Message{Channel: "a", Data: []byte(strings.Repeat("x", i)), Key: fmt.Sprint(i)}); err != nil {
			t.Fatal(err)
		}
	}
	closeHub(h)
	p := h.Save(nil)
	next := New(Config{History: 10})
	defer closeHub(next)
	for n := range p {
		if next.Restore(p[:n]) == nil {
			t.Fatalf("%d bytes of %d are restored", n, len(p))
		}
	}
	if next.Restore(append(p, 0)) == nil || next.seq != 0 || next.Stats().Kept != 0 {
		t.Error("something is restored")
	}
}

// FuzzRestore: whatever is restored, it does no harm. Then it can be saved again.
func FuzzRestore(f *testing.F) {
	h := New(Config{History: 10})
	for i := range 5 {
		if err := h.Publish(&Message{Channel: "a", Data: []byte("x"), Key: fmt.Sprint(i)}, &Message{Channel: "b", Emit: &Emit{Args: []byte("[1]")}, Kind: JSON, Data: []byte("1")}); err != nil {
			f.Fatal(err)
		}
	}
	closeHub(h)
	f.Add(h.Save(nil))
	f.Fuzz(func(t *testing.T, p []byte) {
		// First without a hub, whose goroutines would have the fuzzer take each run for another one.
		r := reader{rest: p}
		if r.saved(); r.failed {
			return
		}
		h := New(Config{History: 5})
		defer closeHub(h)
		if h.Restore(p) != nil {
			return
		}
		if err := h.Publish(&Message{Channel: "a", Key: "new"}); err != nil {
			t.Fatal(err)
		}
		if again := New(Config{History: 5}); again.Restore(h.Save(nil)) != nil {
			t.Error("what was restored cannot be restored again")
		} else {
			closeHub(again)
		}
	})
}

// TestStartWith: what has to be done first is done before the first message, once, and others wait for it.
func TestStartWith(t *testing.T) {
	h := New(Config{})
	defer closeHub(h)
	begun, done := make(chan struct{}), make(chan struct{})
	h.StartWith(func() {
		close(begun)
		<-done
		h.Configure(Config{History: 1})
	})
	published := make(chan error, 2)
	for range 2 {
		go func() { published <- h.Publish(&Message{Channel: "a"}) }()
	}
	<-begun
	select {
	case <-published:
		t.Error("published before the hub has started")
	default:
	}
	close(done)
	for range 2 {
		if err := <-published; err != nil {
			t.Error(err)
		}
	}
	if h.Start(); h.Stats().Kept != 1 {
		t.Error("its options are not those that it started with")
	}
}

// BenchmarkRestore saves and restores 64 MiB, as much as is kept by default.
func BenchmarkRestore(b *testing.B) {
	for _, size := range []int{0, 1000, 60_000} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			h := New(Config{History: 1 << 30})
			for i := 0; h.history.bytes.Load() < DefaultHistoryBytes-100_000; i++ {
				if err := h.Publish(&Message{Channel: fmt.Sprint(i % 1000), Data: []byte(strings.Repeat("x", size))}); err != nil {
					b.Fatal(err)
				}
			}
			closeHub(h)
			for b.Loop() {
				begin := time.Now()
				p := h.Save(nil)
				b.ReportMetric(time.Since(begin).Seconds()*1000, "ms-to-save")
				next := New(Config{History: 1 << 30})
				begin = time.Now()
				if err := next.Restore(p); err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(time.Since(begin).Seconds()*1000, "ms-to-restore")
				b.ReportMetric(float64(len(p)), "bytes")
				closeHub(next)
			}
		})
	}
}
