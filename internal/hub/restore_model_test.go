package hub

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestRestore: after a restart clients get from any position what they would have got without it, or are told of a gap; and
// positions go on. That is so whatever is kept of which channel, and however old it is.
func TestRestore(t *testing.T) {
	seed := rand.Uint64()
	for round := range 200 {
		synctest.Test(t, func(t *testing.T) { runRestore(t, rand.New(rand.NewPCG(seed, uint64(round)))) })
		if t.Failed() {
			t.Fatal("seed ", seed, ", round ", round)
		}
	}
}

// restoreNames are those that messages are kept for.
var restoreNames = []string{"n1", "n2"}

func runRestore(t *testing.T, r *rand.Rand) {
	o := Config{History: r.IntN(6), HistoryAge: time.Duration(r.IntN(2)) * 20 * time.Second, HistoryBytes: 30 * messageOverhead, Histories: randomRules(r)}
	h := New(o)
	c := connect(t, h, options())
	for _, name := range restoreNames {
		enter(t, c, Entrance{Name: name, Keep: true})
	}
	for range r.IntN(60) {
		if err := h.Publish(randomMessages(r)...); err != nil {
			t.Fatal(err)
		}
		if r.IntN(4) == 0 {
			time.Sleep(time.Duration(r.IntN(4000)) * time.Millisecond)
		}
	}
	c.conn.Done()
	synctest.Wait()
	next := restarted(t, h, o)
	// The one that is closed is the model: it still knows what to answer, but nothing drops what grows old.
	for range 3 {
		if next.epoch != h.epoch || next.seq != h.seq {
			t.Fatalf("restored %v of %v", next.Stats(), h.Stats())
		}
		for after := range h.seq + 1 {
			compareMissed(t, h, next, FormatID(h.epoch, after))
		}
		time.Sleep(time.Duration(r.IntN(20_000)) * time.Millisecond)
		synctest.Wait()
		for !h.trimToLocked(o.historyBytes(), time.Now()) {
		}
		if a, b := h.Stats(), next.Stats(); a.Kept != b.Kept || a.KeptBytes != b.KeptBytes {
			t.Fatalf("%d messages of %d bytes are kept, not %d of %d", b.Kept, b.KeptBytes, a.Kept, a.KeptBytes)
		}
	}
	m := &Message{Channel: "a"}
	if err := next.Publish(m); err != nil || m.Seq != h.seq+1 || m.epoch() != h.epoch {
		t.Fatal(m.ID(), err)
	}
	closeHub(next)
}

// randomMessages returns what one call publishes: a message of any kind.
func randomMessages(r *rand.Rand) []*Message {
	m := &Message{Channel: historyChannels[r.IntN(4)], Data: []byte(strings.Repeat("1", 1+r.IntN(messageOverhead))), Kind: Kind(r.IntN(3))}
	if r.IntN(3) == 0 {
		m.Event = "e"
	}
	switch r.IntN(6) {
	case 0:
		m.Transient = true
	case 1, 2:
		m.Conflate = NewConflateKey(fmt.Sprint("key ", r.IntN(3)))
	case 3, 4:
		m.Emit = &Emit{}
		if r.IntN(2) == 0 {
			m.Emit.Args, m.Emit.Attachments = []byte(`[1,{"_placeholder":true,"num":0}]`), [][]byte{{0, 1}}
		}
		rooms := append(slices.Clone(historyChannels), restoreNames...)
		r.Shuffle(len(rooms), func(i, j int) { rooms[i], rooms[j] = rooms[j], rooms[i] })
		m.Emit.Except = rooms[:r.IntN(2)]
		return ToRooms(m, rooms[1:2+r.IntN(4)], func(s string) bool { return s[0] == 'n' })
	}
	return []*Message{m}
}

// compareMissed compares what clients get from two hubs that come back with a position.
func compareMissed(t *testing.T, h, next *Hub, id string) {
	t.Helper()
	for _, channel := range historyChannels {
		want, gaps := missed(h, []string{channel}, id)
		got, more := missed(next, []string{channel}, id)
		if !slices.Equal(described(got), described(want)) || !slices.Equal(gaps, more) {
			t.Fatalf("%s after %s: %q, gaps %v, not %q, %v", channel, id, described(got), more, described(want), gaps)
		}
	}
	for _, name := range restoreNames {
		want, all := missedByName(h, name, id)
		got, too := missedByName(next, name, id)
		if !slices.Equal(described(got), described(want)) || all != too {
			t.Fatalf("%s after %s: %q, all %v, not %q, %v", name, id, described(got), too, described(want), all)
		}
	}
}

// missed returns what a subscriber gets that comes back, and of which channels it is told that something is missing.
func missed(h *Hub, channels []string, id string) (ms []*Message, gaps []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	ms, w := h.replayFromLocked(&hearer{conn: &Conn{hub: h}}, channels, id, 0, 1<<20)
	slices.SortFunc(ms, bySeq)
	return ms, w.Gaps
}

// missedByName is the same of private messages. all is false if some are missing.
func missedByName(h *Hub, name, id string) (ms []*Message, all bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.addPrivateLocked(&hearer{conn: &Conn{hub: h}, name: name}, nil, &Entrance{LastID: id}, 1<<20)
}

// described returns all that a client or a later message may find of messages.
func described(ms []*Message) (texts []string) {
	for _, m := range ms {
		text := fmt.Sprint(m.ID(), m.Channel, m.Event, m.Kind, string(m.Data), m.Conflate, m.Time.UnixNano())
		if e := m.Emit; e != nil {
			text += fmt.Sprint(string(e.Args), e.Attachments, e.Rooms, e.Except, e.To, e.id)
		}
		texts = append(texts, text)
	}
	return texts
}
