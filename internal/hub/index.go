package hub

import (
	"iter"
	"slices"
	"sort"
	"strings"
)

// maxLeaf is how many names a leaf of the index holds: few enough that moving them costs next to nothing, and enough
// that a million names make only some thousand leaves.
const maxLeaf = 128

// index holds the names of the channels in order, so that a list of channels can continue after any name without
// looking at all of them. A map cannot do that, and cannot be read in pieces either. The names are in leaves, all
// names of one leaf before those of the next. Adding or removing a name is a binary search, and moves the names of one
// leaf; seldom, when a leaf is split or merged, the leaves. Hub.mu guards it.
type index struct {
	leaves []leaf
}

// leaf has at least one name. Those that come before least, if there are any, are in the leaves before it.
type leaf struct {
	least string
	names []string
}

// add adds a name that the index does not have.
func (x *index) add(name string) {
	if len(x.leaves) == 0 {
		x.leaves = []leaf{{name, []string{name}}}
		return
	}
	i := x.find(name)
	names := x.leaves[i].names
	at, _ := slices.BinarySearch(names, name)
	if len(names) < maxLeaf {
		x.leaves[i].names = slices.Insert(names, at, name)
		return
	}
	const half = maxLeaf / 2
	right := append(make([]string, 0, maxLeaf), names[half:]...)
	least := right[0]
	// Otherwise the names would be kept in memory by both leaves.
	clear(names[half:])
	names = names[:half]
	if at <= half {
		names = slices.Insert(names, at, name)
	} else {
		right = slices.Insert(right, at-half, name)
	}
	x.leaves[i].names = names
	x.leaves = slices.Insert(x.leaves, i+1, leaf{least, right})
}

// remove removes a name that the index has.
func (x *index) remove(name string) {
	i := x.find(name)
	names := x.leaves[i].names
	at, _ := slices.BinarySearch(names, name)
	x.leaves[i].names = slices.Delete(names, at, at+1)
	switch {
	case len(names) == 1:
		x.leaves = slices.Delete(x.leaves, i, i+1)
	// At half a leaf and not at a full one, so that the next name does not split it again.
	case i > 0 && x.sparse(i-1):
		x.merge(i - 1)
	case x.sparse(i):
		x.merge(i)
	}
	if len(x.leaves) == 0 {
		x.leaves = nil
	}
}

// sparse reports whether leaf i and the next one would fill only half a leaf together.
func (x *index) sparse(i int) bool {
	return i+1 < len(x.leaves) && len(x.leaves[i].names)+len(x.leaves[i+1].names) <= maxLeaf/2
}

// merge moves the names of the leaf after leaf i to it.
func (x *index) merge(i int) {
	x.leaves[i].names = append(x.leaves[i].names, x.leaves[i+1].names...)
	x.leaves = slices.Delete(x.leaves, i+1, i+2)
}

// find returns which leaf a name belongs in.
func (x *index) find(name string) int {
	return max(0, sort.Search(len(x.leaves), func(i int) bool { return x.leaves[i].least > name })-1)
}

// from yields the names that begin with prefix and are not less than first, in order. The index must not change
// meanwhile.
func (x *index) from(first, prefix string) iter.Seq[string] {
	return func(yield func(string) bool) {
		if len(x.leaves) == 0 {
			return
		}
		first := max(first, prefix)
		i := x.find(first)
		at, _ := slices.BinarySearch(x.leaves[i].names, first)
		for ; i < len(x.leaves); i, at = i+1, 0 {
			for _, name := range x.leaves[i].names[at:] {
				if !strings.HasPrefix(name, prefix) || !yield(name) {
					return
				}
			}
		}
	}
}

// following returns the least name that comes after another. Names are compared by their bytes, so nothing fits between a
// name and the same name with a zero byte.
func following(name string) string { return name + "\x00" }
