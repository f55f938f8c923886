package hub

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// TestIndex adds and removes random names and compares what the index lists with a sorted list of the names.
func TestIndex(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	var x index
	names := make(map[string]bool)
	for round := range 20_000 {
		name := fmt.Sprint(r.IntN(100), ":", r.IntN(60))
		grow := round/5000%2 == 0 // so that leaves are split, and then merged
		switch {
		case !names[name] && (grow || r.IntN(4) == 0):
			x.add(name)
			names[name] = true
		case names[name] && (!grow || r.IntN(4) == 0):
			x.remove(name)
			delete(names, name)
		}
		if round%100 != 0 {
			continue
		}
		first, prefix := fmt.Sprint(r.IntN(100)), ""
		if r.IntN(2) == 0 {
			prefix = fmt.Sprint(r.IntN(10))
		}
		var want []string
		for name := range names {
			if name >= first && strings.HasPrefix(name, prefix) {
				want = append(want, name)
			}
		}
		slices.Sort(want)
		if got := slices.Collect(x.from(first, prefix)); !slices.Equal(got, want) {
			t.Fatalf("seed %d, round %d: from %q with %q: got %q, want %q", seed, round, first, prefix, got, want)
		}
		// Leaves that are nearly empty are merged, or a few names would take the memory of many.
		if n := len(x.leaves); n > 2+4*len(names)/maxLeaf {
			t.Fatalf("seed %d, round %d: %d leaves for %d names", seed, round, n, len(names))
		}
	}
	for name := range names {
		x.remove(name)
	}
	if x.leaves != nil {
		t.Errorf("left behind: %q", x.leaves)
	}
}
