package hub

// slabChunk bounds what one growth of a slab costs under the hub's lock: a chunk of keys is 64 KiB. A slice would copy
// all its elements instead, 170 MiB of them at maxKeys.
const slabChunk = 1024

// slab holds elements in an array that grows without being copied. An element is known by its place, a number from 1,
// which takes half the memory of a pointer and gives the garbage collector nothing to follow. Elements can be in
// lists: each has links for every list it may be in at the same time, and the caller says which.
type slab[T any, P element[T]] struct {
	chunks []*[slabChunk]T
	made   uint32 // places that were ever used
	free   uint32 // the first free place; links(0).after of a free place is the next one
}

// element is a pointer to something that a slab holds.
type element[T any] interface {
	*T
	links(which int) *links
}

// links are an element's neighbors in one list. 0 means none.
type links struct{ before, after uint32 }

// slabList is a doubly linked list of elements of one slab. The zero slabList is empty.
type slabList struct{ first, last uint32 }

// at returns the element at a place, for as long as it is not removed.
func (s *slab[T, P]) at(i uint32) P { return &s.chunks[(i-1)/slabChunk][(i-1)%slabChunk] }

// add puts an element in a free place, or in one that was never used, and returns it.
func (s *slab[T, P]) add(v T) uint32 {
	i := s.free
	if i != 0 {
		s.free = s.at(i).links(0).after
	} else {
		if int(s.made) == slabChunk*len(s.chunks) {
			s.chunks = append(s.chunks, new([slabChunk]T))
		}
		s.made++
		i = s.made
	}
	*s.at(i) = v
	return i
}

// remove frees a place. The element must not be in a list.
func (s *slab[T, P]) remove(i uint32) {
	*s.at(i) = *new(T)
	s.at(i).links(0).after = s.free
	s.free = i
}

// push appends an element to a list.
func (s *slab[T, P]) push(l *slabList, which int, i uint32) {
	*s.at(i).links(which) = links{before: l.last}
	if l.last == 0 {
		l.first = i
	} else {
		s.at(l.last).links(which).after = i
	}
	l.last = i
}

// unlink takes an element out of the list that it is in.
func (s *slab[T, P]) unlink(l *slabList, which int, i uint32) {
	own := s.at(i).links(which)
	if own.before == 0 {
		l.first = own.after
	} else {
		s.at(own.before).links(which).after = own.after
	}
	if own.after == 0 {
		l.last = own.before
	} else {
		s.at(own.after).links(which).before = own.before
	}
	*own = links{}
}
