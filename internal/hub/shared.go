package hub

import "sync/atomic"

// shared is an array that backlogs refer to. It counts as memory once, however many backlogs refer to it: counted once for
// each, a message to many slow connections would look like more memory than there is, and cause evictions that free none.
// References are counted because of that alone. The garbage collector frees the bytes.
type shared struct {
	bytes []byte
	refs  atomic.Int32
	held  *atomic.Int64 // where it counts, until the last reference is gone
	list  *messageList  // what a piece of that kind stands for; then there are no bytes
}

// sharedOverhead is about what an array costs in addition to its bytes: the struct, and the allocator's rounding of both.
const sharedOverhead = 64

// share counts p in held. The caller owns the first reference.
func share(p []byte, held *atomic.Int64) *shared {
	s := &shared{bytes: p, held: held}
	s.refs.Store(1)
	held.Add(s.cost())
	return s
}

func (s *shared) cost() int64 { return int64(cap(s.bytes)) + sharedOverhead }

// release drops a reference. It may be called on nil, which stands for no reference.
func (s *shared) release() {
	if s != nil && s.refs.Add(-1) == 0 {
		s.held.Add(-s.cost())
	}
}
