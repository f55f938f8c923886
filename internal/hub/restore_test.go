package hub

import (
	"fmt"
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
	if got, gaps := missed(next, []string{"a"}, FormatID(h.epoch, 6)); len(got) != 2 || got[0].Seq != 7 || got[1].Seq != 9 || gaps != nil {
		t.Error(described(got), gaps)
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
	if n == nil || n.kept.history.count != 1 || n.kept.newest().Emit.To != "n" || n.kept.newest().Channel != "a" {
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
		// Without goroutines, whose order would have the fuzzer take each run for another one.
		h, again := newIdle(Config{History: 5}), newIdle(Config{History: 5})
		defer stopTimers(h, again)
		if h.Restore(p) != nil {
			return
		}
		if err := h.Publish(&Message{Channel: "a", Key: "new"}); err != nil {
			t.Fatal(err)
		}
		if again.Restore(h.Save(nil)) != nil {
			t.Error("what was restored cannot be restored again")
		}
	})
}

// stopTimers is for hubs that are not closed.
func stopTimers(hubs ...*Hub) {
	for _, h := range hubs {
		for _, timer := range []*time.Timer{h.history.timer, h.repeats.timer} {
			if timer != nil {
				timer.Stop()
			}
		}
	}
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
