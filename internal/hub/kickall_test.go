package hub

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
)

// kickable connects a client of a user.
func kickable(t *testing.T, h *Hub, user string) *client {
	t.Helper()
	c, _ := connectAs(t, h, options(), Subscriber{Channels: []string{"a"}, User: user})
	return c
}

func expectKicked(t *testing.T, c *client) {
	t.Helper()
	if got, why := c.wait(1); why != ReasonPolicy || len(got) > 0 {
		t.Errorf("got %v, closed because of %v", got, why)
	}
}

// expectOpen closes a client that must still be open, and fails if it is not.
func expectOpen(t *testing.T, h *Hub, clients ...*client) {
	t.Helper()
	for _, c := range clients {
		if n := len(h.Connections(Filter{ID: c.conn.id}, 1)); n != 1 {
			t.Errorf("%s is not open", c.conn.ID())
		}
	}
}

// expectTally waits until hubs have carried out a kick, and checks how many connections each has closed.
func expectTally(t *testing.T, k KickRequest, hubs []*Hub, want ...int) {
	t.Helper()
	for i, h := range hubs {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		if n, ok := h.Kicked(ctx, k.Request); n != want[i] || !ok {
			t.Errorf("node %d has closed %d, %v", i, n, ok)
		}
		cancel()
	}
}

func publishKick(t *testing.T, h *Hub, k KickRequest) {
	t.Helper()
	if err := h.PublishKick(k); err != nil {
		t.Fatal(err)
	}
}

// TestKickAll: all hubs that share a log close the connections of a user, and one of them the connection with an ID. Nobody
// else notices.
func TestKickAll(t *testing.T) {
	_, hubs, logs := sharing(t, 2, Config{History: 10})
	a, b, other := kickable(t, hubs[0], "ann"), kickable(t, hubs[1], "ann"), kickable(t, hubs[1], "ben")
	all, _ := connectAs(t, hubs[1], gapOptions(), Subscriber{All: true})
	before, log := hubs[1].Stats(), hubs[1].logStats()
	k := NewKickRequest("", "ann")
	publishKick(t, hubs[0], k)
	expectTally(t, k, hubs, 1, 1)
	expectKicked(t, a)
	expectKicked(t, b)
	expectOpen(t, hubs[1], other)

	third := kickable(t, hubs[0], "ann")
	k = NewKickRequest(other.conn.ID(), "")
	publishKick(t, hubs[0], k)
	expectTally(t, k, hubs, 0, 1)
	expectKicked(t, other)
	expectOpen(t, hubs[0], third)

	logs[1].do(func() { logs[1].sink.Broken(nil); logs[1].sink.Lost([]string{kickChannel}); logs[1].sink.Repaired() })
	m := publish(t, hubs[0], "a")
	expect(t, all, m.Seq)
	if m.Seq != 3 {
		t.Errorf("a kick has no place in the log: %d", m.Seq)
	}
	after, now := hubs[1].Stats(), hubs[1].logStats()
	if after.Gaps != before.Gaps || after.Kept != before.Kept+1 || now.Received != log.Received+1 || now.OpenChannels != log.OpenChannels || len(hubs[1].Channels("", "", 10)) != 1 {
		t.Errorf("%+v, %+v", after, now)
	}
}

func (h *Hub) logStats() LogStats {
	_, s, _ := h.Log()
	return s
}

// TestKickOfNodeAway: a node that was cut off carries out a kick when it is back, but not one that is older than a minute, and
// not against a connection that is certainly later.
func TestKickOfNodeAway(t *testing.T) {
	_, hubs, logs := sharing(t, 2, Config{})
	c := kickable(t, hubs[1], "ann")
	logs[1].hold(true)
	k := NewKickRequest("", "ann")
	publishKick(t, hubs[0], k)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if n, ok := hubs[1].Kicked(ctx, k.Request); n != 0 || ok {
		t.Errorf("it has closed %d, %v", n, ok)
	}
	logs[1].hold(false)
	expectTally(t, k, hubs, 0, 1)
	expectKicked(t, c)

	late := func(seq uint64, age time.Duration, want int) {
		k := NewKickRequest("", "ann")
		data, _ := json.Marshal(k)
		e := broker.Entry{Seq: seq, Time: time.Now().Add(-age).UnixMilli(), Channel: kickChannel, Data: data}
		logs[1].do(func() { logs[1].sink.Entries([]broker.Entry{e}) })
		logs[1].idle()
		expectTally(t, k, hubs[1:], want)
	}
	waitFor(t, func() bool { return time.Now().UnixMilli() > hubs[1].epochBegan })
	second := kickable(t, hubs[1], "ann")
	for range 3 {
		publish(t, hubs[0], "other")
	}
	logs[1].idle()
	third := kickable(t, hubs[1], "ann")
	late(10, 2*KickTime, 0)
	expectOpen(t, hubs[1], second, third)
	late(2, 0, 1)
	expectKicked(t, second)
	expectOpen(t, hubs[1], third)
	late(3, 0, 0)
	expectOpen(t, hubs[1], third)
}

// TestKickWithoutTime: a log that cannot tell when an entry was stored has kicks carried out nevertheless. Otherwise nothing would
// ever be closed, and the answer be that there was nothing to close.
func TestKickWithoutTime(t *testing.T) {
	_, hubs, logs := sharing(t, 1, Config{})
	c := kickable(t, hubs[0], "ann")
	k := NewKickRequest("", "ann")
	data, _ := json.Marshal(k)
	logs[0].do(func() { logs[0].sink.Entries([]broker.Entry{{Seq: 1, Channel: kickChannel, Data: data}}) })
	expectTally(t, k, hubs, 1)
	expectKicked(t, c)
}

// TestUndeliverableMovesWatermark: I1 is about everything in the log, also about what no client gets. A client that comes with a
// position after it would be told of a gap otherwise.
func TestUndeliverableMovesWatermark(t *testing.T) {
	c, hubs, logs := sharing(t, 1, Config{})
	publishKick(t, hubs[0], NewKickRequest("", "ann"))
	logs[0].idle()
	if got := hubs[0].Stats().Seq; got != c.last() {
		t.Errorf("the hub is at %d after a kick at %d", got, c.last())
	}
	logs[0].do(func() { logs[0].sink.Entries([]broker.Entry{{Seq: 9, Channel: "not\x02valid"}}) })
	logs[0].idle()
	if got := hubs[0].Stats().Seq; got != 9 {
		t.Errorf("the hub is at %d after what no client could accept at 9", got)
	}
}

// TestKickWhileLogIsReplaced: a kick that comes between two connections to the same log is read from the second one.
func TestKickWhileLogIsReplaced(t *testing.T) {
	cluster, hubs, logs := sharing(t, 2, Config{})
	c := kickable(t, hubs[1], "ann")
	logs[1].hold(true)
	k := NewKickRequest("", "ann")
	publishKick(t, hubs[0], k)
	cluster.join(t, hubs[1])
	expectTally(t, k, hubs, 0, 1)
	expectKicked(t, c)
	logs[1].hold(false)
}

// TestKickOfNobody: with no log, or one that is down, nothing is published.
func TestKickOfNobody(t *testing.T) {
	h := New(Config{})
	defer closeHub(h)
	if err := h.PublishKick(NewKickRequest("", "ann")); err != ErrDown {
		t.Error(err)
	}
	cluster := newFakeCluster()
	cluster.join(t, h)
	cluster.err = broker.ErrClosed
	if err := h.PublishKick(NewKickRequest("", "ann")); err != ErrDown {
		t.Error(err)
	}
}

// TestTallies: what is remembered of kicks is bounded.
func TestTallies(t *testing.T) {
	var x tallies
	for i := range 3 * maxTallies {
		x.get(fmt.Sprint(i))
	}
	if len(x.byRequest) > maxTallies || len(x.oldest) > maxTallies {
		t.Errorf("%d, %d", len(x.byRequest), len(x.oldest))
	}
}

// FuzzKick: whatever is in the log selects one connection, or those of one user, and never all.
func FuzzKick(f *testing.F) {
	for _, s := range []string{`{"request":"r","user":"ann"}`, `{"request":"r","connection":"k3x9f2.c1"}`, `{"request":"r"}`, `{"request":"r","connection":"c1","user":"ann"}`,
		`{"request":"r","user":"ann","code":4403}`, `{"request":"r","user":"ann","code":1000}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		q, k, here, err := parseKick(data, "k3x9f2")
		if err != nil {
			return
		}
		if q.Request == "" || len(q.Request) > maxKickRequest || (k.ID == 0) == (k.User == "") || k.ID == 0 && !here {
			t.Errorf("%q, %+v, %v", q.Request, k, here)
		}
		if q.Code != 0 && (q.Code < MinKickCode || q.Code > MaxKickCode) {
			t.Errorf("closes with %d", q.Code) // such as one that no frame may have
		}
	})
}
