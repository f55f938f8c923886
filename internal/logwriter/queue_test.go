package logwriter

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
)

// TestModel compares a queue with a model: lines that fit, in order, and between them numbers of those that did not.
func TestModel(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Log("seed", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	q, h, s := start(t, hub.Config{})
	var want []string
	size, gap, before := 0, 0, Dropped()
	all := 0
	for range 30 { // rounds without a hub and then with it
		for range r.IntN(200) {
			text, line := randomEntry(r)
			switch n := len(text) + entryOverhead; {
			case line == "": // it is left out
			case len(text) > maxEntry || size+n > maxWaiting:
				gap++
				all++
			default:
				if gap > 0 {
					want = append(want, string(append([]byte("j"), notice(entry{dropped: uint64(gap), at: time.Now()})...)))
				}
				want, size, gap = append(want, line), size+n, 0
			}
			write(t, q, text)
		}
		if gap > 0 {
			want = append(want, string(append([]byte("j"), notice(entry{dropped: uint64(gap), at: time.Now()})...)))
		}
		size, gap = 0, 0
		Use(h)
		got := s.await(func(lines []string) bool { return len(lines) >= len(want) })
		if !equal(got, want) {
			t.Fatalf("got %d lines, not the %d that were expected", len(got), len(want))
		}
		Leave(h)
	}
	if n := int(Dropped() - before); n != all {
		t.Errorf("%d were counted as dropped, not %d", n, all)
	}
}

// randomEntry returns an entry of any kind, and the line that it becomes, if any.
func randomEntry(r *rand.Rand) (text, line string) {
	switch r.IntN(12) {
	case 0:
		return "", ""
	case 1:
		return `{"level":"warn","ts":1,"logger":"broadcast.log","msg":"own"}`, ""
	case 2:
		text = fmt.Sprintf("console\t%d", r.Int())
		return text, "t" + text
	case 3:
		text = fmt.Sprintf("{\"truncated %d", r.Int())
		return text, "t" + text
	case 4:
		n := r.Int()
		return fmt.Sprintf("{bad \xff\xfe %d", n), fmt.Sprintf("t{bad \uFFFD %d", n)
	case 5:
		return strings.Repeat("x", maxEntry+1), "j?"
	case 6:
		text = strings.Repeat("y", r.IntN(maxEntry))
		text = `{"long":"` + text[:max(0, len(text)-20)] + `"}`
	default:
		text = fmt.Sprintf(`{"level":"info","n":%d}`, r.Int())
	}
	return text, "j" + text
}

// TestConcurrent: many write at once while entries are published. Each entry is published or counted, in its writer's order.
func TestConcurrent(t *testing.T) {
	const writers, each = 8, 4000
	q, h, s := start(t, hub.Config{})
	Use(h)
	var all sync.WaitGroup
	for w := range writers {
		all.Go(func() {
			for i := range each {
				write(t, q, fmt.Sprintf(`{"w":%d,"i":%d}`, w, i))
			}
		})
	}
	all.Wait()
	lines := s.await(func(lines []string) bool { return total(lines) == writers*each })
	next := make([]int, writers)
	for _, line := range lines {
		var w, i int
		if droppedBy(line) > 0 {
			continue
		}
		if _, err := fmt.Sscanf(line, `j{"w":%d,"i":%d}`, &w, &i); err != nil || i < next[w] {
			t.Fatalf("%s comes after %d: %v", line, next[w], err)
		}
		next[w] = i + 1
	}
}

// TestFull: while the hub accepts nothing, writing does not wait, and afterwards the channel says how much is missing.
func TestFull(t *testing.T) {
	q, h, s := start(t, hub.Config{MaxInbox: 64 << 10})
	Use(h)
	before := Dropped()
	s.stick(true)
	text := `{"long":"` + strings.Repeat("x", 1000) + `"}`
	n := 0
	for ; Dropped() == before; n++ {
		write(t, q, text)
	}
	if n < maxWaiting/(len(text)+entryOverhead) || n > 4<<20/len(text) {
		t.Errorf("%d entries are not dropped", n)
	}
	for range 100 {
		write(t, q, text)
	}
	s.stick(false)
	lines := s.await(func(lines []string) bool { return total(lines) == n+100 })
	if lost := total(lines) - len(lines) + 1; lost != int(Dropped()-before) {
		t.Errorf("%d of %d lines, and %d were counted as dropped", len(lines), n+100, Dropped()-before)
	}
}

// TestFlush: an exit waits until what was logged is published, but not for long if that cannot be.
func TestFlush(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, h, s := start(t, hub.Config{MaxInbox: 64 << 10})
		other := open("other") // which has nothing
		t.Cleanup(func() { other.Close() })
		Flush() // there is no hub
		Use(h)
		s.stick(true)
		const n = 900 // four batches: the hub's loop has one, and its inbox another
		for range n {
			write(t, q, `{"long":"`+strings.Repeat("x", 1000)+`"}`)
		}
		began := time.Now()
		if Flush(); time.Since(began) != flushTime {
			t.Errorf("it has waited for %s for a hub that is stuck", time.Since(began))
		}
		s.stick(false)
		began = time.Now()
		if Flush(); time.Since(began) != 0 {
			t.Errorf("it has waited for %s", time.Since(began))
		}
		synctest.Wait()
		if lines := s.await(func([]string) bool { return true }); len(lines) != n {
			t.Errorf("%d lines have come", len(lines))
		}
	})
}

// TestClosed: what cannot be published because the hub is closed is counted, and the next hub's subscribers are told first.
func TestClosed(t *testing.T) {
	q, first, _ := start(t, hub.Config{})
	Use(first)
	before := Dropped()
	closeHub(first)
	for range 3 {
		write(t, q, `{"a":1}`)
	}
	for Dropped() != before+3 { // polled, because the goroutine that counts them tells nobody
		time.Sleep(time.Millisecond)
	}
	second := hub.New(hub.Config{})
	t.Cleanup(func() { Leave(second); closeHub(second) })
	s := subscribe(t, second)
	Leave(first)
	Use(second)
	Leave(first) // it is late, and is not the one that is used
	write(t, q, `{"b":2}`)
	lines := s.await(func(lines []string) bool { return len(lines) == 2 })
	if droppedBy(lines[0]) != 3 || lines[1] != `j{"b":2}` {
		t.Error(lines)
	}
}

// BenchmarkPublish writes entries as fast as possible, with a subscriber: how long writing takes, and how many are published.
func BenchmarkPublish(b *testing.B) {
	h := hub.New(hub.Config{})
	q := open("log")
	subscribe(b, h)
	Use(h)
	b.Cleanup(func() {
		Leave(h)
		q.Close()
		closeHub(h)
	})
	p := []byte(`{"level":"info","msg":"handled request","request":{"uri":"/` + strings.Repeat("x", 400) + `"}}` + "\n")
	before := Dropped()
	for b.Loop() {
		q.Write(p)
	}
	b.ReportMetric((float64(b.N)-float64(Dropped()-before))/b.Elapsed().Seconds(), "published/s")
}
