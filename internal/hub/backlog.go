package hub

import (
	"slices"
	"sync"
	"unsafe"
)

// backlog is what waits to be written to one connection: first the rest of its replay, then the queue. It is a plain
// data structure. It has no lock (Conn.mu guards it), does not know its connection, and writes nothing itself: the
// flusher asks for the next step, takes it without the lock, and reports what came of it.
//
//	push, dropOldest ──► queue ──► next ──► Sink.Write ──► advance
//	                      replay ──► next ──► Format.Append ──► encoded
//
// The zero value is an empty backlog. It must not be copied, because queue may refer to one.
type backlog struct {
	replay   *replay  // what comes before the queue, if there is something
	queue    []piece  // oldest first
	one      [1]piece // the queue's space when it is short, as it always is on HTTP/2
	size     int      // bytes in queue
	space    int32    // pieces that queue's array has room for, unless that is one
	required int32    // pieces of the queue that dropOldest keeps
	held     int32    // what lists take besides their messages
	writing  int16    // pieces of the queue that the flusher is writing, or was when the peer got stuck
	pinged   bool     // a ping is in the queue
	begun    bool     // part of the queue's first piece was written, so the rest has to follow
}

// piece is a part of a queue: a batch, a reply or a notice. Only the first one can have been written in part.
type piece struct {
	bytes []byte // what is left to write
	array *shared
	kind  pieceKind
}

// pieceKind decides what dropOldest does with a piece.
type pieceKind uint8

const (
	droppable pieceKind = iota // messages, and what is of no use later
	required                   // replies to the peer's requests, which wait for them
	heartbeat                  // a ping; at most one waits
	gapNotice                  // tells the peer that messages were dropped here
	listed                     // messages that are encoded when the flusher comes to them; see messageList
)

const (
	// pieceSize is what a piece takes in the queue's array.
	pieceSize = int(unsafe.Sizeof(piece{}))

	// pieceOverhead is about what a piece costs in addition to its bytes, in its own array and the queue's.
	pieceOverhead = 120

	// maxRequired bounds the required pieces of a queue that drops the oldest, so that dropping does not have to look
	// at many of them each time.
	maxRequired = 256

	// chunkSize is how much is written at once: as much as a TLS record holds (RFC 8446, section 5.1).
	chunkSize = 16 << 10

	// maxWriting bounds the pieces that are written at once, because dropOldest moves them when it drops others.
	maxWriting = 256
)

// replay is what a connection starts with: its first bytes, and messages of the history. The flusher encodes them when
// it comes to them, because encoded they would take space while they wait.
type replay struct {
	bytes    []byte     // encoded, and not yet written
	space    int        // what the array of bytes has room for
	begun    bool       // some of bytes was written, or is being written
	messages []*Message // not yet encoded, in the order of the log
}

// footprint is what a backlog takes.
type footprint struct {
	waiting int // bytes that are ready to be written
	held    int // memory of its own: not that of messages and of arrays, which others may refer to
}

// footprint returns what the backlog takes now. Whatever changes the backlog compares it before and after: see
// Conn.settleLocked.
func (b *backlog) footprint() footprint {
	f := footprint{b.size, int(b.space)*pieceSize + int(b.held)}
	if r := b.replay; r != nil {
		f.waiting += len(r.bytes)
		f.held += r.space + int(unsafe.Sizeof(r))*cap(r.messages)
	}
	return f
}

func (b *backlog) empty() bool { return b.replay == nil && len(b.queue) == 0 }

// excess returns by how many bytes a queue with n more would be over the limit. One piece always fits, however large,
// so that a batch cannot be larger than what a connection may have waiting.
func (b *backlog) excess(n, limit int) int {
	if len(b.queue) == 0 {
		return 0
	}
	return max(0, b.size+n+pieceOverhead*(len(b.queue)+1)-limit)
}

// push adds a piece. The piece's reference to its array becomes the backlog's.
func (b *backlog) push(p piece) {
	if b.queue == nil {
		b.queue = b.one[:0]
	}
	grows := len(b.queue) == cap(b.queue)
	if b.queue = append(b.queue, p); grows {
		b.space = int32(cap(b.queue))
	}
	if p.kind == required {
		b.required++
	}
	if p.kind == heartbeat {
		b.pinged = true
	}
	b.size += len(p.bytes)
}

// dropOldest makes room for n bytes, as far as it can: what is being written stays, and so do required pieces. Where
// pieces were dropped there is one notice of it, if notice returns one.
func (b *backlog) dropOldest(n, limit int, notice func() (piece, bool)) {
	first := b.inFlight()
	excess := b.excess(n, limit)
	var stay []piece
	noticed := false
	i := first
	for ; excess > 0 && i < len(b.queue); i++ {
		p := b.queue[i]
		if p.kind == required || p.kind == heartbeat || p.kind == gapNotice && !noticed {
			noticed = noticed || p.kind == gapNotice
			stay = append(stay, p)
			continue
		}
		if !noticed {
			noticed = true
			if p, ok := notice(); ok {
				b.size += len(p.bytes)
				excess += len(p.bytes) + pieceOverhead // it takes room too: a reply that fits beside it must not be refused
				stay = append(stay, p)
			}
		}
		excess -= len(p.bytes) + pieceOverhead
		b.release(p)
	}
	free := i - first - len(stay) // at least 0: a notice takes the place of what it tells of
	copy(b.queue[first+free:], stay)
	b.shift(first, free)
}

// dropAll drops all but what is being written. It returns the messages of the replay, which the caller lets go of.
func (b *backlog) dropAll() (dropped []*Message) {
	first := b.inFlight()
	for _, p := range b.queue[first:] {
		dropped = append(dropped, b.unlist(p)...)
		b.release(p)
	}
	b.shift(first, len(b.queue)-first)
	if r := b.replay; r != nil {
		dropped, r.messages = append(dropped, r.messages...), nil
		if !r.begun || len(r.bytes) == 0 {
			b.replay = nil
		}
	}
	return dropped
}

// reset empties the backlog, whatever is being written, and gives its array back: a quiet connection holds no buffer.
// It returns the messages of the replay, which the caller lets go of.
func (b *backlog) reset() (dropped []*Message) {
	for _, p := range b.queue {
		dropped = append(dropped, b.unlist(p)...)
		b.release(p)
	}
	if b.replay != nil {
		dropped = append(dropped, b.replay.messages...)
	}
	*b = backlog{}
	return dropped
}

// inFlight returns how many pieces of the queue cannot be taken back.
func (b *backlog) inFlight() int {
	if b.begun && b.writing == 0 {
		return 1
	}
	return int(b.writing)
}

// release counts a piece out, and drops its reference.
func (b *backlog) release(p piece) {
	if p.kind == required {
		b.required--
	}
	if p.kind == heartbeat {
		b.pinged = false
	}
	b.size -= len(p.bytes)
	p.array.release()
}

// shift moves the first pieces of the queue over the free ones that follow them.
func (b *backlog) shift(first, free int) {
	copy(b.queue[free:], b.queue[:first])
	clear(b.queue[:free])
	b.queue = b.queue[free:]
}

// step is what a flusher does next: encode messages, if there are any, or else write bytes.
type step struct {
	encode []*Message
	write  []byte
	chunk  *chunk // the space of write, if it is only lent
}

// chunk is where small pieces are put together for one write. A flusher has it for that write only.
type chunk [chunkSize]byte

var chunks = sync.Pool{New: func() any { return new(chunk) }}

// recycle gives the space of the bytes back, once they are written.
func (s step) recycle() {
	if s.chunk != nil {
		chunks.Put(s.chunk)
	}
}

// next returns the next step of a backlog that is not empty. It is followed by encoded or advance.
func (b *backlog) next() step {
	for b.replay == nil && b.queue[0].kind == listed {
		b.takeListed() // there is something behind a list of which nothing is left
	}
	if r := b.replay; r != nil {
		if len(r.bytes) == 0 {
			return step{encode: r.next()}
		}
		r.begun = true
		return step{write: r.bytes[:min(len(r.bytes), chunkSize)]}
	}
	// A piece that is large or alone is written from where it is. Small ones are copied together: one write, and on TLS
	// one record, costs less than many.
	if first := b.queue[0].bytes; len(b.queue) == 1 || len(first) >= chunkSize {
		b.writing = 1
		return step{write: first[:min(len(first), chunkSize)]}
	}
	space := chunks.Get().(*chunk)
	n := 0
	b.writing = 0
	for _, p := range b.queue[:min(len(b.queue), maxWriting)] {
		if p.kind == listed {
			break
		}
		n += copy(space[n:], p.bytes)
		b.writing++
		if n == chunkSize {
			break
		}
	}
	return step{write: space[:n], chunk: space}
}

// next returns as many messages as are written at once when they are encoded, but at least one.
func (r *replay) next() []*Message {
	n, size := 1, r.messages[0].size()
	for n < len(r.messages) && size+r.messages[n].size() <= chunkSize {
		size += r.messages[n].size()
		n++
	}
	return slices.Clip(r.messages[:n])
}

// encoded takes what the messages of a step are when they are encoded. It reports whether they were the replay's until
// now: else they have been dropped meanwhile, and are not written.
func (b *backlog) encoded(ms []*Message, p []byte) bool {
	r := b.replay
	if r == nil || len(r.messages) == 0 {
		return false
	}
	r.messages = r.messages[len(ms):]
	r.bytes, r.space, r.begun = p, cap(p), false
	b.endReplay()
	return true
}

// endReplay ends a replay that has nothing more to write.
func (b *backlog) endReplay() {
	if r := b.replay; len(r.bytes) == 0 && len(r.messages) == 0 {
		b.replay = nil
	}
}

// halt is advance for a step that has not ended, because the peer is stuck. The sink may have encrypted the rest already, so that
// it has to be written next, and cannot be taken back.
func (b *backlog) halt(n int) {
	pieces, before := int(b.writing), len(b.queue)
	b.advance(n)
	b.writing = int16(max(0, pieces-(before-len(b.queue))))
}

// advance removes the first n bytes of a step, which were written. An array counts until all of it is written.
func (b *backlog) advance(n int) {
	b.writing = 0
	if r := b.replay; r != nil {
		if r.bytes = r.bytes[n:]; len(r.bytes) == 0 {
			r.bytes, r.space = nil, 0
			b.endReplay()
		}
		return
	}
	for n > 0 {
		first := &b.queue[0]
		if n < len(first.bytes) {
			first.bytes = first.bytes[n:]
			b.size -= n
			b.begun = true
			return
		}
		n -= len(first.bytes)
		b.release(*first)
		*first = piece{}
		b.queue = b.queue[1:]
		b.begun = false
	}
}
