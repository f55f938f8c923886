package nats

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
	"github.com/caddy-broadcast/caddy-broadcast/internal/natstest"
)

func lines(n int) []broker.Entry {
	es := make([]broker.Entry, n)
	for i := range es {
		es[i] = entry("a", fmt.Sprint(i))
	}
	return es
}

// More entries than a batch may have are several, in order, and each batch is next to each other.
func TestSeveralBatches(t *testing.T) {
	n := dialTest(t, testConfig(t, natstest.Start(t, "").URL(), 1))
	n.MustOpen(t, "a")
	places := n.MustPublish(t, lines(2500)...)
	n.Await(t, "all entries", func() bool { return len(n.Came) == 2500 })
	for i, e := range n.Came {
		if string(e.Data) != fmt.Sprint(i) || places[i].Seq != e.Seq || i%maxBatch > 0 && e.Seq != places[i-1].Seq+1 {
			t.Fatalf("entry %d is %q at %d, and was acked at %d", i, e.Data, e.Seq, places[i].Seq)
		}
	}
}

// If the broker goes away between two batches, the publisher is told which entries are stored.
func TestPartOfBatches(t *testing.T) {
	s := natstest.Start(t, "")
	proxy := natstest.NewProxy(t, s)
	c := testConfig(t, proxy.URL(), 1)
	c.PublishTimeout = time.Second
	n := dialTest(t, c)
	n.publisher.mu.Lock()
	inbox := n.publisher.inbox
	n.publisher.mu.Unlock()
	acks := 0
	proxy.Drop(func(subject string, _ []byte) bool {
		if len(subject) <= len(inbox) || subject[:len(inbox)] != inbox {
			return false
		}
		// The second batch is sent when the ack of the first one has come, so nothing of that is still under way.
		if acks++; acks < 2 {
			return false
		}
		go proxy.Refuse()
		return true
	})
	_, err := n.Try(lines(2500)...)
	var partial *broker.PartialError
	if !errors.As(err, &partial) || len(partial.Places)%maxBatch != 0 || len(partial.Places) == 0 || len(partial.Places) == 2500 {
		t.Fatalf("%v", err)
	}
	if !errors.Is(err, broker.ErrDown) && !errors.Is(err, broker.ErrUnknown) {
		t.Errorf("%v", err)
	}
	reader := dialTest(t, testConfig(t, s.URL(), 1))
	es, complete := reader.read(t, "a", 0)
	if len(es) < len(partial.Places) || !complete {
		t.Fatalf("%d are stored, complete %v", len(es), complete)
	}
	for i, place := range partial.Places {
		if es[i].Seq != place.Seq || string(es[i].Data) != fmt.Sprint(i) {
			t.Fatalf("entry %d is %q at %d, and was acked at %d", i, es[i].Data, es[i].Seq, place.Seq)
		}
	}
}
