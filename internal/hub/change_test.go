package hub

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
)

// noting is a format that tells clients of their channels: as a message with the position 1<<60, and 1 more when they have left.
type noting struct{ seqs }

const notice = 1 << 60

func (noting) Subscribed(_ string, _ Welcome, missed []*Message) []byte {
	return seqs{}.Append(seqs{}.Append(nil, []*Message{{Seq: notice}}), missed)
}

func (noting) Unsubscribed(string) []byte { return seqs{}.Append(nil, []*Message{{Seq: notice + 1}}) }

func noticed() *ConnOptions {
	o := options()
	o.Format = noting{}
	return o
}

func expectChanged(t *testing.T, h *Hub, x Change, done, failed int) {
	t.Helper()
	if n, err := h.Change(x); err != nil || n != (Changed{done, failed}) {
		t.Errorf("%+v: %+v, %v", x, n, err)
	}
}

// TestChange: a backend subscribes the connections of a user, or one, and unsubscribes them. Clients are told where their protocol
// can, the messages are exactly those in between, and nobody else gets any.
func TestChange(t *testing.T) {
	h := New(Config{History: 10})
	defer closeHub(h)
	as := func(o *ConnOptions, user string) *client {
		c, _ := connectAs(t, h, o, Subscriber{Channels: []string{"a"}, User: user})
		return c
	}
	told, plain, ben := as(noticed(), "ann"), as(options(), "ann"), as(options(), "ben")
	silent := options()
	silent.NoSubscribe = true
	only := as(silent, "ann")

	before := publish(t, h, "room")
	expectChanged(t, h, Change{Do: DoJoin, User: "ann", Channel: "room"}, 2, 0)
	first := publish(t, h, "room")
	expectChanged(t, h, Change{Do: DoJoin, User: "ann", Channel: "room"}, 2, 0) // twice is once
	expectChanged(t, h, Change{Do: DoLeave, Connection: plain.conn.ID(), Channel: "room"}, 1, 0)
	second := publish(t, h, "room")
	expectChanged(t, h, Change{Do: DoLeave, User: "ann", Channel: "room"}, 1, 0)
	expectChanged(t, h, Change{Do: DoLeave, User: "ann", Channel: "room"}, 0, 0)
	expectChanged(t, h, Change{Do: DoJoin, User: "carl", Channel: "room"}, 0, 0)
	publish(t, h, "room")
	last := publish(t, h, "a")

	expect(t, told, notice, first.Seq, notice, second.Seq, notice+1, last.Seq)
	expect(t, plain, first.Seq, last.Seq)
	expect(t, ben, last.Seq)
	expect(t, only, last.Seq)
	if before.Seq != first.Seq-1 {
		t.Errorf("a change has no position: %d, then %d", before.Seq, first.Seq)
	}
}

// TestChangeFails: one that is on as many channels as it may be cannot join another one, which the backend is told.
func TestChangeFails(t *testing.T) {
	h := New(Config{})
	defer closeHub(h)
	var channels []string
	for i := range MaxJoined {
		channels = append(channels, fmt.Sprint("c", i))
	}
	full, _ := connectAs(t, h, options(), Subscriber{Channels: channels, User: "ann"})
	connectAs(t, h, options(), Subscriber{Channels: []string{"a"}, User: "ann"})
	expectChanged(t, h, Change{Do: DoJoin, User: "ann", Channel: "room"}, 1, 1)
	full.conn.Done()
	for _, x := range []Change{
		{}, {Do: DoJoin, Channel: "room"}, {Do: DoJoin, User: "ann"}, {Do: DoClose, User: "ann", Channel: "room"},
		{Do: DoJoin, User: "ann", Connection: "c1", Channel: "room"}, {Do: DoJoin, Connection: "1", Channel: "room"},
		{Do: DoJoin, User: "a\x00", Channel: "room"}, {Do: DoJoin, User: "ann", Channel: kickChannel},
	} {
		if n, err := h.Change(x); err == nil || n != (Changed{}) {
			t.Errorf("%+v: %+v", x, n)
		}
		if x.Check() == nil {
			t.Errorf("%+v is not found wrong", x)
		}
	}
}

func expectChangedOn(t *testing.T, k KickRequest, hubs []*Hub, want ...Changed) {
	t.Helper()
	for i, h := range hubs {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		if n, ok := h.Changed(ctx, k.Request); n != want[i] || !ok {
			t.Errorf("node %d: %+v, %v", i, n, ok)
		}
		cancel()
	}
}

// TestChangeAll: all hubs that share a log make a change, to the connections that were there before it. They get all that the log has
// after it, although the channel had to be opened first.
func TestChangeAll(t *testing.T) {
	_, hubs, logs := sharing(t, 2, Config{History: 10})
	as := func(h *Hub, user string) *client {
		c, _ := connectAs(t, h, noticed(), Subscriber{Channels: []string{"a"}, User: user})
		return c
	}
	a, b, ben := as(hubs[0], "ann"), as(hubs[1], "ann"), as(hubs[1], "ben")
	k := NewChangeRequest(Change{Do: DoJoin, User: "ann", Channel: "room"})
	publishKick(t, hubs[0], k)
	first := publish(t, hubs[0], "room")
	expectChangedOn(t, k, hubs, Changed{1, 0}, Changed{1, 0})
	expect(t, a, notice, first.Seq)
	expect(t, b, notice, first.Seq)

	later := as(hubs[1], "ann")
	k = NewChangeRequest(Change{Do: DoJoin, Connection: ben.conn.ID(), Channel: "room"})
	publishKick(t, hubs[0], k)
	expectChangedOn(t, k, hubs, Changed{}, Changed{1, 0})
	k = NewChangeRequest(Change{Do: DoLeave, User: "ann", Channel: "room"})
	publishKick(t, hubs[1], k)
	expectChangedOn(t, k, hubs, Changed{1, 0}, Changed{1, 0})
	second := publish(t, hubs[0], "room")
	expect(t, ben, notice, second.Seq)
	last := publish(t, hubs[0], "a")
	expect(t, a, notice, first.Seq, notice+1, last.Seq)
	expect(t, later, last.Seq)

	// One that comes late, after a fault, does not concern who came later than it.
	k = NewChangeRequest(Change{Do: DoJoin, User: "ann", Channel: "late"})
	data, _ := json.Marshal(k)
	waitFor(t, func() bool { return time.Now().UnixMilli() > hubs[1].epochBegan })
	newest := as(hubs[1], "ann")
	logs[1].do(func() {
		logs[1].sink.Entries([]broker.Entry{{Seq: last.Seq, Time: time.Now().UnixMilli(), Channel: kickChannel, Data: data}})
	})
	expectChangedOn(t, k, hubs[1:], Changed{2, 0})
	if slices.Contains(newest.conn.Channels(), "late") || !slices.Contains(later.conn.Channels(), "late") {
		t.Errorf("%v, %v", newest.conn.Channels(), later.conn.Channels())
	}
}

// TestChangeIsNoKick: a hub that does not know changes, as one of an earlier version, finds nothing in the request that it would close.
func TestChangeIsNoKick(t *testing.T) {
	data, _ := json.Marshal(NewChangeRequest(Change{Do: DoJoin, User: "ann", Channel: "room"}))
	var known struct {
		Request, Connection, User string
	}
	if err := json.Unmarshal(data, &known); err != nil || known.Request == "" || known.Connection+known.User != "" {
		t.Errorf("%s: %+v, %v", data, known, err)
	}
}

// positioned is noting, whose notice has the position in it.
type positioned struct{ noting }

func (positioned) Subscribed(_ string, w Welcome, missed []*Message) []byte {
	_, seq, _ := parseID(w.ID)
	return seqs{}.Append(seqs{}.Append(nil, []*Message{{Seq: notice | seq}}), missed)
}

const leftNotice = notice << 1

func (positioned) Unsubscribed(string) []byte {
	return seqs{}.Append(nil, []*Message{{Seq: leftNotice}})
}

// TestChangeOrder: while two publishers publish, a backend subscribes a client and unsubscribes it, again and again. The notice comes
// before the first message of the channel, with its position, no message is missing from there to the end, and none follows that.
func TestChangeOrder(t *testing.T) {
	_, shared, _ := sharing(t, 1, Config{})
	alone := New(Config{})
	t.Cleanup(func() { closeHub(alone) })
	for name, h := range map[string]*Hub{"alone": alone, "with a log": shared[0]} {
		for _, every := range []time.Duration{0, time.Millisecond} {
			t.Run(fmt.Sprint(name, " ", every), func(t *testing.T) { testChangeOrder(t, h, every) })
		}
	}
}

func testChangeOrder(t *testing.T, h *Hub, every time.Duration) {
	o := options()
	o.Format, o.DeliverEvery, o.MaxBacklog = positioned{}, every, 1<<24
	c, _ := connectAs(t, h, o, Subscriber{Channels: []string{"a"}, User: t.Name()})
	defer c.conn.Done()
	done := make(chan struct{})
	var publishers sync.WaitGroup
	for range 2 {
		publishers.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
					publish(t, h, "room")
				}
			}
		})
	}
	for range 100 {
		expectChanged(t, h, Change{Do: DoJoin, User: t.Name(), Channel: "room"}, 1, 0)
		expectChanged(t, h, Change{Do: DoLeave, User: t.Name(), Channel: "room"}, 1, 0)
	}
	close(done)
	publishers.Wait()
	last := publish(t, h, "a")

	var got []uint64
	waitFor(t, func() bool {
		got, _ = c.wait(1)
		return got[len(got)-1] == last.Seq
	})
	next, notices := uint64(0), 0 // next is 0 while it is not subscribed
	for i, v := range got[:len(got)-1] {
		switch {
		case v == leftNotice && next > 0:
			next = 0
		case v&notice > 0 && next == 0:
			next = v&^notice + 1
			notices++
		case v == next:
			next++
		default:
			t.Fatalf("entry %d is %#x, after which %d was expected", i, v, next)
		}
	}
	if notices != 100 || next != 0 {
		t.Errorf("%d notices, then %d", notices, next)
	}
}

// TestJoinedLate: the position after a late join is that of all that the connection has had, and not of the channel's last message.
func TestJoinedLate(t *testing.T) {
	h := New(Config{History: 10})
	defer closeHub(h)
	c := connect(t, h, options(), "a")
	from := publish(t, h, "room").ID()
	missed, other := publish(t, h, "room"), publish(t, h, "a")
	var w Welcome
	err := c.conn.Join("room", from, func(got Welcome, ms []*Message) []byte {
		w = got
		return seqs{}.Append(nil, ms)
	})
	if err != nil || w.ID != from || w.Now != other.ID() {
		t.Errorf("%+v, %v", w, err)
	}
	expect(t, c, other.Seq, missed.Seq)
}
