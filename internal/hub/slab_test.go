package hub

import (
	"math/rand/v2"
	"slices"
	"testing"
)

type slabItem struct {
	value int
	in    [2]links
}

func (i *slabItem) links(which int) *links { return &i.in[which] }

// TestSlab: two lists over one slab are what two slices are, through any sequence of additions and removals, and space
// is used again before more is made.
func TestSlab(t *testing.T) {
	var s slab[slabItem, *slabItem]
	var lists [2]slabList
	var want [2][]int
	places := make(map[int]uint32)
	most := 0
	check := func() {
		for which, l := range lists {
			var forward, backward []int
			for i := l.first; i != 0; i = s.at(i).links(which).after {
				forward = append(forward, s.at(i).value)
			}
			for i := l.last; i != 0; i = s.at(i).links(which).before {
				backward = append(backward, s.at(i).value)
			}
			slices.Reverse(backward)
			if !slices.Equal(forward, want[which]) || !slices.Equal(backward, want[which]) {
				t.Fatalf("list %d: %v forward, %v backward, not %v", which, forward, backward, want[which])
			}
		}
	}
	r := rand.New(rand.NewPCG(1, 2))
	for value := range 4 * slabChunk {
		i := s.add(slabItem{value: value})
		places[value] = i
		for which := range lists {
			s.push(&lists[which], which, i)
			want[which] = append(want[which], value)
		}
		if r.IntN(3) == 0 { // to the end of one list, as an owner whose class changes
			value := want[1][r.IntN(len(want[1]))]
			s.unlink(&lists[1], 1, places[value])
			s.push(&lists[1], 1, places[value])
			at := slices.Index(want[1], value)
			want[1] = append(slices.Delete(want[1], at, at+1), value)
		}
		most = max(most, len(places))
		for range r.IntN(3) { // out of both, the first of all now and then
			if len(want[0]) == 0 {
				break
			}
			value := want[0][r.IntN(len(want[0]))]
			for which := range lists {
				s.unlink(&lists[which], which, places[value])
				at := slices.Index(want[which], value)
				want[which] = slices.Delete(want[which], at, at+1)
			}
			s.remove(places[value])
			delete(places, value)
		}
		if value%64 == 0 {
			check()
		}
	}
	check()
	if int(s.made) != most {
		t.Errorf("%d places for at most %d elements", s.made, most)
	}
}
