package hub

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
)

// TestConflateShared: a conflate key goes through a shared log with the data, and an entry that no hub can have written is ignored.
func TestConflateShared(t *testing.T) {
	m := &Message{Channel: "a", Kind: JSON, Data: []byte("[1]"), Conflate: NewConflateKey("row:7")}
	e := entriesOf([]*Message{m}, 0)[0]
	got := messageOf(&e, time.Now())
	if got == nil || got.Conflate != m.Conflate || string(got.Data) != "[1]" || got.Kind != JSON {
		t.Errorf("got %+v", got)
	}
	for _, p := range []string{"", "\x00", "\x02a", "\x00[1]", "\x01\x00[1]", "\x01\xff[1]"} {
		e := broker.Entry{Channel: "a", Kind: uint8(JSON) | kindConflate, Data: []byte(p)}
		if got := messageOf(&e, time.Now()); got != nil {
			t.Errorf("%q is %+v", p, got)
		}
	}
	both := broker.Entry{Channel: "a", Kind: kindConflate | kindEmit, Data: []byte("\x01a[1]")}
	if messageOf(&both, time.Now()) != nil {
		t.Error("an emit has a conflate key")
	}
	// Another conflate key is another message, for the same idempotency key.
	a, b := &Message{Channel: "a", Conflate: NewConflateKey("1")}, &Message{Channel: "a"}
	if a.sharedDigest() == b.sharedDigest() {
		t.Error("the digest does not have the conflate key")
	}
}

// TestConflateChecked: a conflate key is text as a channel's name is, and a message that only some get has none.
func TestConflateChecked(t *testing.T) {
	h := New(Config{})
	defer closeHub(h)
	for _, m := range []*Message{
		{Channel: "a", Conflate: NewConflateKey("a\x00")},
		{Channel: "a", Conflate: NewConflateKey("\xff")},
		{Channel: "a", Conflate: NewConflateKey(strings.Repeat("x", MaxName+1))},
		{Channel: "a", Conflate: NewConflateKey("a"), Emit: &Emit{Except: []string{"n"}}},
	} {
		if err := h.Publish(m); err == nil {
			t.Errorf("%q was published", m.Conflate)
		}
	}
}

// BenchmarkSupersede is what it costs to publish an update of a random row, by the number of rows that the history has. The steps are
// the same for all, but the processor's caches hold less of many rows.
func BenchmarkSupersede(b *testing.B) {
	for _, rows := range []int{500, 10_000, 100_000} {
		b.Run(fmt.Sprint("rows=", rows), func(b *testing.B) {
			h := New(Config{History: rows, HistoryBytes: 1 << 30})
			defer closeHub(h)
			keys := make([]ConflateKey, rows)
			for i := range keys {
				keys[i] = NewConflateKey(fmt.Sprint("row:", i))
			}
			update := func(i int) {
				if err := h.Publish(&Message{Channel: "a", Conflate: keys[i]}); err != nil {
					b.Fatal(err)
				}
			}
			for i := range keys {
				update(i)
			}
			b.ResetTimer()
			for range b.N {
				update(rand.IntN(rows))
			}
		})
	}
}
