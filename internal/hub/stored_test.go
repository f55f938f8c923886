package hub

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// TestStoredList compares a list with a slice, while messages are added at both ends and removed anywhere.
func TestStoredList(t *testing.T) {
	random := rand.New(rand.NewPCG(rand.Uint64(), 1))
	for range 200 {
		ch := &channel{}
		var model []*stored
		for range 60 {
			switch s, n := (&stored{channel: ch}), len(model); {
			case random.IntN(5) < 2:
				ch.history.append(inChannel, s)
				model = append(model, s)
			case random.IntN(3) == 0:
				ch.history.prepend(inChannel, s)
				model = slices.Insert(model, 0, s)
			case n > 0:
				i := random.IntN(n)
				ch.history.remove(inChannel, model[i])
				model = slices.Delete(model, i, i+1)
			}
			ch.history.check(t, model)
		}
	}
}

// check compares a channel's list with what it should have, from both ends.
func (l *storedList) check(t *testing.T, want []*stored) {
	t.Helper()
	var up, down []*stored
	for s := l.oldest; s != nil; s = s.newer() {
		up = append(up, s)
	}
	for s := l.newest; s != nil; s = s.older() {
		down = append(down, s)
	}
	slices.Reverse(down)
	if !slices.Equal(up, want) || !slices.Equal(down, want) || l.count != len(want) {
		t.Fatalf("%d are counted, %d from the oldest on, %d from the newest on, not %d", l.count, len(up), len(down), len(want))
	}
}

// TestStoredListReader: who reads from the newest on, and stops in between, still comes to all older ones that are left, whatever was
// removed meanwhile, also where it stopped.
func TestStoredListReader(t *testing.T) {
	random := rand.New(rand.NewPCG(rand.Uint64(), 2))
	for range 500 {
		ch := &channel{}
		var model []*stored
		for range 20 {
			s := &stored{channel: ch}
			ch.history.append(inChannel, s)
			model = append(model, s)
		}
		read := make(map[*stored]bool)
		for s := ch.history.newest; s != nil; s = s.older() {
			read[s] = true
			for len(model) > 0 && random.IntN(2) == 0 {
				i := random.IntN(len(model))
				ch.history.remove(inChannel, model[i])
				model = slices.Delete(model, i, i+1)
			}
			ch.history.append(inChannel, &stored{channel: ch})
		}
		for _, s := range model {
			if !read[s] {
				t.Fatal("one that is left was not read")
			}
		}
	}
}

// TestKeptLocallyInPieces: a page of a long history is right wherever it begins.
func TestKeptLocallyInPieces(t *testing.T) {
	h := New(Config{History: 1000})
	defer closeHub(h)
	var all []uint64
	for range 3 * atOnce {
		m := &Message{Channel: "a"}
		if err := h.Publish(m, &Message{Channel: "b"}); err != nil {
			t.Fatal(err)
		}
		all = append(all, m.Seq)
	}
	for i, seq := range all {
		ms, more, err := h.KeptMessages(t.Context(), "a", FormatID(h.epoch, seq), false, 10, 1000)
		want := all[i+1 : min(i+11, len(all))]
		if err != nil || !slices.Equal(seqsOf(ms), want) || more != (i+11 < len(all)) {
			t.Fatalf("after %d: %v, %t, %v", seq, seqsOf(ms), more, err)
		}
	}
	for _, limit := range []int{1, atOnce - 1, atOnce, atOnce + 1, 2 * atOnce, 3 * atOnce, 1000} {
		ms, more, err := h.KeptMessages(t.Context(), "a", "", true, limit, 1000)
		if err != nil || !slices.Equal(seqsOf(ms), all[max(0, len(all)-limit):]) || more {
			t.Fatalf("the last %d: %v, %t, %v", limit, seqsOf(ms), more, err)
		}
		ms, more, err = h.KeptMessages(t.Context(), "a", "", false, limit, 1000)
		if err != nil || !slices.Equal(seqsOf(ms), all[:min(limit, len(all))]) || more != (limit < len(all)) {
			t.Fatalf("the first %d: %v, %t, %v", limit, seqsOf(ms), more, err)
		}
	}
}
