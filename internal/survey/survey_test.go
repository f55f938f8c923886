package survey

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
	"github.com/caddy-broadcast/caddy-broadcast/broker/brokertest"
	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/nodes"
	"github.com/caddy-broadcast/caddy-broadcast/internal/presence"
	"github.com/caddy-broadcast/caddy-broadcast/internal/protocol/raw"
)

// member is a node of a cluster whose questions are calls.
type member struct {
	*Survey
	hub      *hub.Hub
	name     string
	all      *[]*member
	handlers map[string]func([]byte) []byte
	broker   *brokertest.MemoryBroker
	silent   bool // it answers nothing
}

func (m *member) node() nodes.Node { return nodes.Node{ID: m.hub.Node(), Name: m.name} }

func (m *member) Known() []nodes.Node {
	list := []nodes.Node{m.node()}
	for _, o := range *m.all {
		if o != m {
			list = append(list, o.node())
		}
	}
	return list
}

func (m *member) Handle(kind string, answer func([]byte) []byte) { m.handlers[kind] = answer }

func (m *member) Ask(_ context.Context, kind string, request []byte, of []nodes.Node) (answers []nodes.Answer, missing []nodes.Node) {
	for _, o := range *m.all {
		if !slices.ContainsFunc(of, func(n nodes.Node) bool { return n.ID == o.hub.Node() }) {
			continue
		}
		if o.silent {
			missing = append(missing, o.node())
		} else {
			answers = append(answers, nodes.Answer{Node: o.node(), Data: o.handlers[kind](request)})
		}
	}
	return answers, missing
}

// start makes nodes that share a log, in the order of their numbers.
func start(t *testing.T, count int) (*brokertest.Memory, []*member) {
	t.Helper()
	memory := brokertest.NewMemory(brokertest.MemoryConfig{Tick: 50 * time.Millisecond})
	t.Cleanup(memory.Close)
	all := new([]*member)
	for range count {
		m := &member{hub: hub.New(hub.Config{History: 10}), all: all, handlers: make(map[string]func([]byte) []byte), broker: memory.Broker()}
		m.Survey = New(m.hub, m, presence.NewTable(m.hub))
		*all = append(*all, m)
		err := m.hub.UseLog(func(s broker.Sink) (broker.Log, error) {
			return m.broker.Dial(s, broker.Options{Node: m.hub.Node(), Retention: m.hub.Retention()})
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { m.hub.Close(hub.ReasonRestart, "", 0, 0) })
	}
	slices.SortFunc(*all, func(a, b *member) int { return strings.Compare(a.self(), b.self()) })
	for i, m := range *all {
		m.name = string(rune('a' + i))
	}
	return memory, *all
}

var options = hub.ConnOptions{Transport: hub.TransportWebSocket, Format: raw.Format{}, PingInterval: time.Minute, WriteTimeout: time.Minute, MaxBacklog: hub.MinBacklog}

// sink is a client that takes everything.
type sink struct{}

func (sink) TryWrite(p []byte) (int, error)               { return len(p), nil }
func (sink) Write(p []byte, _ time.Duration) (int, error) { return len(p), nil }
func (sink) Close()                                       {}

// connect connects clients of a user.
func (m *member) connect(t *testing.T, count int, user string, channels ...string) (ids []string) {
	t.Helper()
	for range count {
		c, _, err := m.hub.Connect(hub.Subscriber{User: user, Remote: "remote", Channels: channels}, &options)
		if err != nil {
			t.Fatal(err)
		}
		c.Start(sink{}, nil)
		ids = append(ids, c.ID())
	}
	return ids
}

// TestConnections: pages go through the nodes, in one order, whoever is asked, and have each connection once.
func TestConnections(t *testing.T) {
	_, all := start(t, 3)
	want := append(all[0].connect(t, 4, "ann", "x"), all[1].connect(t, 2, "ben", "x", "y")...)
	want = append(want, all[2].connect(t, 3, "ann", "y")...)
	for limit := 1; limit <= 10; limit++ {
		var got []string
		after := ""
		for page := 0; ; page++ {
			p, err := all[page%3].Connections(t.Context(), "", hub.Filter{}, after, limit)
			if err != nil || len(p.Entries) > limit || len(p.Missing) > 0 {
				t.Fatalf("%+v, %v", p, err)
			}
			for _, c := range p.Entries {
				got = append(got, c.ID)
				if of, _, _ := strings.Cut(c.ID, "."); all[int(c.Node[0]-'a')].self() != of {
					t.Errorf("%s is said to be on %s", c.ID, c.Node)
				}
			}
			if !p.More {
				break
			}
			after = got[len(got)-1]
		}
		if !slices.Equal(got, want) {
			t.Errorf("pages of %d: %v, not %v", limit, got, want)
		}
	}
	for _, c := range []struct {
		node   string
		filter hub.Filter
		after  string
		want   []string
	}{
		{"", hub.Filter{User: "ann"}, "", append(slices.Clone(want[:4]), want[6:]...)},
		{"", hub.Filter{Channel: "y"}, want[4], want[5:]},
		{"b", hub.Filter{}, "", want[4:6]},
		{all[2].self(), hub.Filter{}, "", want[6:]},
		{"a", hub.Filter{}, "c2", want[2:4]}, // as before there was a broker
		{"a", hub.Filter{}, want[8], nil},
		{"", hub.Filter{}, "zzzzzz.c1", nil},
	} {
		p, err := all[0].Connections(t.Context(), c.node, c.filter, c.after, 100)
		var got []string
		for _, e := range p.Entries {
			got = append(got, e.ID)
		}
		if err != nil || p.More || !slices.Equal(got, c.want) {
			t.Errorf("%+v: %v, %v", c, got, err)
		}
	}
	if _, err := all[0].Connections(t.Context(), "d", hub.Filter{}, "", 1); !errors.Is(err, NoNodeError("d")) {
		t.Error(err)
	}
	all[1].silent = true
	if p, _ := all[0].Connections(t.Context(), "", hub.Filter{}, "", 100); len(p.Entries) != 7 || !slices.Equal(p.Missing, []string{"b"}) {
		t.Errorf("%+v", p)
	}
	if p, _ := all[0].Connections(t.Context(), "a", hub.Filter{}, "", 100); len(p.Entries) != 4 || len(p.Missing) > 0 {
		t.Errorf("%+v", p)
	}
}

// TestLargePages: no node sends more than a page, whatever the limit, and nothing is left out.
func TestLargePages(t *testing.T) {
	_, all := start(t, 2)
	long := make([]string, 40)
	for i := range long {
		long[i] = fmt.Sprint(i, strings.Repeat("x", 200))
	}
	all[0].connect(t, maxEntries+10, "", "x")
	all[1].connect(t, 100, "", long...)
	seen := make(map[string]bool)
	pages, after := 0, ""
	for more := true; more; pages++ {
		p, err := all[0].Connections(t.Context(), "", hub.Filter{}, after, 100_000)
		if err != nil || len(p.Entries) == 0 {
			t.Fatal(p, err)
		}
		for _, c := range p.Entries {
			if seen[c.ID] {
				t.Fatalf("%s comes twice", c.ID)
			}
			seen[c.ID] = true
		}
		more, after = p.More, p.Entries[len(p.Entries)-1].ID
	}
	if len(seen) != maxEntries+110 || pages < 4 {
		t.Errorf("%d connections on %d pages", len(seen), pages)
	}
}

// TestManyNodes: the more nodes are asked the less each of them sends, so that all answers together are not too much. Each
// sends one entry at least.
func TestManyNodes(t *testing.T) {
	_, all := start(t, 2)
	for i := range 50 {
		all[0].connect(t, 1, fmt.Sprint("user", i), "x", fmt.Sprint(i, strings.Repeat("x", 200)))
	}
	for kind, least := range map[string]int{kindChannels: 1, kindConnections: 1, kindChannel: 0} {
		for _, most := range []int{1, 10_000, 20_000} {
			data := all[0].handlers[kind](fmt.Appendf(nil, `{"limit":1000,"channel":"x","bytes":%d}`, most))
			var p struct {
				Entries []struct {
					More bool `json:"more_users"`
				}
				More bool
			}
			if err := json.Unmarshal(data, &p); err != nil || len(p.Entries) <= least-1 || len(data) > max(most, 4000) || (kind != kindChannel) != p.More && most < 10_000 {
				t.Errorf("%s of %d bytes: %d, %d entries, %v", kind, most, len(data), len(p.Entries), err)
			}
		}
	}
	var sent question
	many := make([]nodes.Node, 1000)
	s := &Survey{hub: all[0].hub, cluster: spy(func(p []byte) {
		if err := json.Unmarshal(p, &sent); err != nil {
			t.Error(err)
		}
	})}
	ask(t.Context(), s, kindChannels, question{}, many, s.channels)
	if sent.Bytes < 10_000 || sent.Bytes*len(many) > answersSize {
		t.Errorf("each of %d nodes may send %d bytes", len(many), sent.Bytes)
	}
}

// spy is a cluster that shows what is asked.
type spy func(request []byte)

func (spy) Known() []nodes.Node                { return nil }
func (spy) Handle(string, func([]byte) []byte) {}
func (s spy) Ask(_ context.Context, _ string, request []byte, of []nodes.Node) ([]nodes.Answer, []nodes.Node) {
	s(request)
	return nil, of
}

// TestChannels: a channel is listed once, with the subscribers of all nodes, and pages do not break it.
func TestChannels(t *testing.T) {
	_, all := start(t, 3)
	for i, m := range all {
		for j := range 30 {
			if (i+j)%2 == 0 || j%5 == 0 {
				m.connect(t, 1, fmt.Sprint("user", i%2), fmt.Sprintf("room:%02d", j))
			}
		}
	}
	for limit := 1; limit < 40; limit += 3 {
		n := 0
		after := ""
		for more := true; more; {
			p, err := all[1].Channels(t.Context(), "", "room:", after, limit)
			if err != nil || len(p.Entries) == 0 || len(p.Entries) > limit {
				t.Fatalf("%+v, %v", p, err)
			}
			for _, c := range p.Entries {
				want := 1 + (n+1)%2
				if n%5 == 0 {
					want = 3
				}
				if c.Channel != fmt.Sprintf("room:%02d", n) || c.Subscribers != want {
					t.Fatalf("%d: %+v, want %d", n, c, want)
				}
				n++
			}
			more, after = p.More, p.Entries[len(p.Entries)-1].Channel
		}
		if n != 30 {
			t.Errorf("%d channels", n)
		}
	}
	if c, ok, err := all[2].Channel(t.Context(), "", "room:10"); !ok || err != nil || fmt.Sprint(c.Subscribers, c.Users) != "3 map[user0:2 user1:1]" {
		t.Errorf("%+v, %v, %v", c, ok, err)
	}
	if c, ok, err := all[2].Channel(t.Context(), "b", "room:10"); !ok || err != nil || fmt.Sprint(c.Subscribers, c.Users) != "1 map[user1:1]" {
		t.Errorf("%+v, %v, %v", c, ok, err)
	}
	if _, ok, _ := all[2].Channel(t.Context(), "", "nothing"); ok {
		t.Error("a channel that is not there")
	}
	all[0].silent = true
	if c, _, _ := all[2].Channel(t.Context(), "", "room:10"); c.Subscribers != 2 || !slices.Equal(c.Missing, []string{"a"}) {
		t.Errorf("%+v", c)
	}
}

// TestAdd: of history most counts, and of messages the latest.
func TestAdd(t *testing.T) {
	c := Channel{Subscribers: 1, History: 3, LastID: "e-9"}
	c.add(Channel{Subscribers: 2, History: 2, LastID: "e-10", Users: map[string]int{"ann": 1}})
	c.add(Channel{Subscribers: 4, History: 1, LastID: "e-8", Users: map[string]int{"ann": 1}})
	if fmt.Sprint(c) != fmt.Sprint(Channel{Subscribers: 7, History: 3, LastID: "e-10", Users: map[string]int{"ann": 2}}) {
		t.Errorf("%+v", c)
	}
}

// TestKick: every node closes what is there, and who does not answer is named.
func TestKick(t *testing.T) {
	memory, all := start(t, 3)
	kick := func(by int, connection, user string, closed, reached int, missing ...string) {
		t.Helper()
		v, err := all[by].Kick(t.Context(), connection, user, 0)
		if err != nil || v.Closed != closed || v.Nodes != reached || !slices.Equal(v.Missing, missing) || v.Missing == nil {
			t.Errorf("%+v, %v", v, err)
		}
	}
	all[0].connect(t, 2, "ann", "x")
	all[1].connect(t, 1, "ann", "x")
	id := all[2].connect(t, 1, "ben", "x")[0]
	kick(2, "", "ann", 3, 3)
	kick(2, "", "ann", 0, 3)
	kick(0, id, "", 1, 1)
	kick(0, id, "", 0, 1)
	kick(0, "000000.c1", "", 0, 0, "000000")
	kick(0, "", strings.Repeat("x", hub.MaxName+1), 0, 3) // nobody has such a name
	kick(0, "", "ann\x00", 0, 3)

	all[1].connect(t, 1, "ann", "x")
	id = all[1].connect(t, 1, "ben", "x")[0]
	all[1].silent = true
	all[1].broker.Disconnect()
	kick(0, "", "ann", 0, 2, "b")
	kick(0, id, "", 0, 0, "b")
	all[1].broker.Reconnect()
	for n := 2; n > 0; { // it does both when it is back
		n = len(all[1].hub.Connections(hub.Filter{}, 10))
	}

	all[0].connect(t, 1, "ann", "x")
	memory.Stop()
	v, err := all[0].Kick(t.Context(), "", "ann", 0)
	unshared, ok := errors.AsType[*UnsharedError](err)
	if !ok || v.Closed != 0 || fmt.Sprint(unshared.Kicked) != "{1 1 [b c] false}" {
		t.Errorf("%+v, %v", v, err)
	}
}

// FuzzQuestion: a question may be anything.
func FuzzQuestion(f *testing.F) {
	h := hub.New(hub.Config{})
	f.Cleanup(func() { h.Close(hub.ReasonRestart, "", 0, 0) })
	all := new([]*member)
	m := &member{hub: h, all: all, handlers: make(map[string]func([]byte) []byte)}
	m.Survey = New(h, m, presence.NewTable(h))
	for _, kind := range []string{kindChannels, kindChannel, kindConnections} {
		f.Add(kind, []byte(`{"limit":3,"after":"c1","channel":"x","user":"ann","prefix":"y"}`))
	}
	f.Fuzz(func(t *testing.T, kind string, request []byte) {
		if answer := m.handlers[kind]; answer != nil && kind != kindKicked {
			answer(request)
		}
	})
}
