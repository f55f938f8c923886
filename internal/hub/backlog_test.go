package hub

import (
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
)

// runBacklog does to a backlog what the words of a script say: "a" pushes a message of that text, "?a" a
// reply, "*" makes room for one byte more than there is, "3" hands out a step and has 3 bytes of it written, "<3" hands
// it out, and ">3" then ends it, "|3" halts it because the peer is stuck, "!" drops all that is not being written.
func runBacklog(t *testing.T, b *backlog, script string, limit int, held *atomic.Int64) (written string) {
	var s step
	finish := func(n int) {
		written += string(s.write[:n])
		s.recycle()
		b.advance(n)
	}
	number := func(s string) (n int) {
		if _, err := fmt.Sscan(s, &n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	notice := func() (piece, bool) {
		p := []byte("~")
		return piece{p, share(p, held), gapNotice}, true
	}
	for _, word := range strings.Fields(script) {
		switch c := word[0]; {
		case c == '!':
			b.dropAll()
		case c == '*':
			b.dropOldest(1, limit, notice)
			if b.excess(1, limit) > 0 && slices.ContainsFunc(b.queue[b.inFlight():], func(p piece) bool { return p.kind == droppable }) {
				t.Error("there is no room, and something that can be dropped")
			}
		case c == '<':
			s = b.next()
		case c == '>':
			finish(number(word[1:]))
		case c == '|':
			written += string(s.write[:number(word[1:])])
			s.recycle()
			b.halt(number(word[1:]))
		case c >= '0' && c <= '9':
			s = b.next()
			finish(number(word))
		default:
			kind := droppable
			if c == '?' {
				kind = required
			}
			p := []byte(word)
			b.push(piece{p, share(p, held), kind})
		}
	}
	return written
}

// TestBacklog: what is written begins in order, whole pieces are dropped and none that is being written, one notice
// stands where messages are missing, and in the end nothing is counted.
func TestBacklog(t *testing.T) {
	// room is the limit that lets four small pieces wait.
	const room = 4 * (pieceOverhead + 2)
	for name, c := range map[string]struct {
		limit        int
		script       string
		written      string // by the script
		queue        string // what it leaves, a piece each
		size, waits  int    // of the queue: its bytes, and its required pieces
		inFlightLeft int
	}{
		"empty":                              {room, "", "", "", 0, 0, 0},
		"one piece":                          {room, "abc", "", "abc", 3, 0, 0},
		"one piece in parts":                 {room, "abc 1 1", "ab", "c", 1, 0, 1},
		"several at once":                    {room, "ab cd ef 6", "abcdef", "", 0, 0, 0},
		"the write ends within a piece":      {room, "ab cd ef 3", "abc", "d ef", 3, 0, 1},
		"what comes meanwhile is after it":   {room, "ab <2 cd >2 2", "abcd", "", 0, 0, 0},
		"nothing was accepted":               {room, "ab cd 0", "", "ab cd", 4, 0, 0},
		"room is there":                      {room, "a b c *", "", "a b c", 3, 0, 0},
		"the oldest is dropped":              {room, "a b c d *", "", "~ c d", 3, 0, 0},
		"one notice, however many":           {room, "a b c d * e *", "", "~ d e", 3, 0, 0},
		"a reply stays":                      {room, "a ?b c d *", "", "~ ?b d", 4, 1, 0},
		"only replies":                       {room, "?a ?b ?c ?d *", "", "?a ?b ?c ?d", 8, 4, 0},
		"what is begun stays":                {room, "abc 1 d e f *", "a", "bc ~ f", 4, 0, 1},
		"what is being written stays":        {room, "a b <2 c d *", "", "a b ~", 3, 0, 2},
		"and is ended after it":              {room, "a b <2 c d * >2 1", "ab~", "", 0, 0, 0},
		"a written reply is not counted":     {room, "?a b 3", "?ab", "", 0, 0, 0},
		"all is dropped":                     {room, "a ?b c !", "", "", 0, 0, 0},
		"all but what is begun":              {room, "abc 1 d ! 2", "abc", "", 0, 0, 0},
		"all but what is being written":      {room, "ab cd <4 e ! >4", "abcd", "", 0, 0, 0},
		"stuck, what was handed out stays":   {room, "ab cd <4 e |0 ! ?f 4", "abcd", "?f", 2, 1, 0},
		"stuck within a piece":               {room, "ab cd <4 |1 e f * 3", "abcd", "~", 1, 0, 0},
		"stuck after a piece":                {room, "ab cd <4 e |2 !", "ab", "cd", 2, 0, 1},
		"a close frame after what was begun": {room, "abc 1 d ! ?bye 4", "abc?b", "ye", 2, 1, 1},
	} {
		t.Run(name, func(t *testing.T) {
			var b backlog
			var held atomic.Int64
			if got := runBacklog(t, &b, c.script, c.limit, &held); got != c.written {
				t.Errorf("wrote %q, not %q", got, c.written)
			}
			var queue []string
			for _, p := range b.queue {
				queue = append(queue, string(p.bytes))
			}
			if got := strings.Join(queue, " "); got != c.queue {
				t.Errorf("the queue is %q, not %q", got, c.queue)
			}
			if b.size != c.size || int(b.required) != c.waits || b.inFlight() != c.inFlightLeft {
				t.Errorf("%d bytes, %d required and %d in flight, not %d, %d and %d", b.size, b.required, b.inFlight(), c.size, c.waits, c.inFlightLeft)
			}
			if b.reset(); held.Load() != 0 || b.footprint() != (footprint{}) || !b.empty() {
				t.Errorf("after reset %d bytes are held, and it takes %+v", held.Load(), b.footprint())
			}
		})
	}
}

// largeMessage is encoded alone.
var largeMessage = &Message{encodedData: chunkSize}

// TestBacklogReplay: the replay comes before the queue, and is encoded as far as it is written at once.
func TestBacklogReplay(t *testing.T) {
	message := func(size int) *Message { return &Message{encodedData: uint32(size)} }
	for name, c := range map[string]struct {
		messages []*Message
		steps    []int // how many messages each step encodes; 0 is a write
	}{
		"no message":       {nil, []int{0}},
		"small ones":       {[]*Message{message(1), message(1), message(1)}, []int{0, 3, 0}},
		"large ones":       {[]*Message{largeMessage, largeMessage}, []int{0, 1, 0, 1, 0}},
		"a large one last": {[]*Message{message(1), largeMessage}, []int{0, 1, 0, 1, 0}},
	} {
		t.Run(name, func(t *testing.T) {
			b := backlog{replay: &replay{bytes: []byte("welcome "), messages: c.messages}}
			var held atomic.Int64
			live := []byte("live")
			b.push(piece{live, share(live, &held), droppable})
			var written string
			for i, want := range c.steps {
				s := b.next()
				if len(s.encode) != want {
					t.Fatalf("step %d encodes %d messages, not %d", i, len(s.encode), want)
				}
				if want > 0 {
					if !b.encoded(s.encode, []byte(strings.Repeat("m", want))) {
						t.Fatalf("step %d is not written", i)
					}
				} else {
					written += string(s.write)
					b.advance(len(s.write))
				}
			}
			if b.replay != nil {
				t.Error("the replay has not ended")
			}
			s := b.next()
			b.advance(len(s.write))
			if written += string(s.write); written != "welcome "+strings.Repeat("m", len(c.messages))+"live" || !b.empty() {
				t.Errorf("wrote %q", written)
			}
		})
	}
}

// TestBacklogReplayIsDropped: what is dropped while it is being encoded is not written, and a frame that was begun is
// ended.
func TestBacklogReplayIsDropped(t *testing.T) {
	t.Run("while it is encoded", func(t *testing.T) {
		b := backlog{replay: &replay{messages: []*Message{largeMessage, largeMessage}}}
		s := b.next()
		if dropped := b.dropAll(); len(dropped) != 2 || !b.empty() {
			t.Errorf("%d messages are dropped", len(dropped))
		}
		if b.encoded(s.encode, []byte("m")) || !b.empty() {
			t.Error("what was dropped is written")
		}
	})
	t.Run("while it is written", func(t *testing.T) {
		b := backlog{replay: &replay{bytes: []byte("mm"), messages: []*Message{largeMessage}}}
		b.next()
		if dropped := b.dropAll(); len(dropped) != 1 {
			t.Errorf("%d messages are dropped", len(dropped))
		}
		if b.advance(1); b.empty() {
			t.Error("the rest of a frame is not written")
		}
		if b.advance(1); !b.empty() {
			t.Error("the replay has not ended")
		}
	})
}
