package hub

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// TestHistory runs random publishes, pauses and changes of the bounds against a model: a list of all messages, of which
// those are kept that no bound excludes. A new subscriber gets the last of them, and then what is published.
func TestHistory(t *testing.T) {
	seed := rand.Uint64()
	for round := range 100 {
		synctest.Test(t, func(t *testing.T) {
			runHistory(t, rand.New(rand.NewPCG(seed, uint64(round))))
		})
		if t.Failed() {
			t.Fatal("seed ", seed, ", round ", round)
		}
	}
}

func runHistory(t *testing.T, r *rand.Rand) {
	o := Config{History: r.IntN(6), HistoryAge: time.Duration(r.IntN(3)) * 10 * time.Second, HistoryBytes: 20 * messageOverhead}
	o.Histories = randomRules(r)
	m := &historyModel{t: t, r: r, h: New(o), config: o}
	for range 200 {
		switch k := r.IntN(20); {
		case k < 12:
			m.publish(historyChannels[r.IntN(len(historyChannels))], r.IntN(messageOverhead))
		case k < 15:
			time.Sleep(time.Duration(r.IntN(8000)) * time.Millisecond)
			synctest.Wait()
		case k == 15:
			m.config.History, m.config.HistoryBytes = r.IntN(6), (5+r.IntN(20))*messageOverhead
			m.config.HistoryAge, m.config.Histories = time.Duration(r.IntN(3))*10*time.Second, randomRules(r)
			m.h.Configure(m.config)
		default:
			m.subscribe()
		}
		m.bound()
		if s := m.h.Stats(); s.Kept != len(m.kept) || s.KeptBytes != cost(m.kept) {
			t.Fatalf("%d messages of %d bytes are kept, not %d of %d", s.Kept, s.KeptBytes, len(m.kept), cost(m.kept))
		}
	}
	if _, age := m.config.mostKept(); age > 0 { // what nobody asks for goes too
		time.Sleep(age)
		synctest.Wait()
		if h := m.h; len(h.channels) != 0 || h.history.oldest != nil || h.history.newest != nil || h.index.leaves != nil || len(h.history.ages) != 0 {
			t.Fatalf("left behind: %v, %v, %v", h.channels, h.history.oldest, h.index)
		}
	}
	closeHub(m.h)
}

// randomRules returns up to two rules, which may apply to the same channels.
func randomRules(r *rand.Rand) (rules []HistoryRule) {
	for range r.IntN(3) {
		some := historyChannels[r.IntN(4):]
		rules = append(rules, HistoryRule{
			Matches: func(name string) bool { return slices.Contains(some, name) },
			Count:   r.IntN(6), Age: time.Duration(r.IntN(3)) * 15 * time.Second,
		})
	}
	return rules
}

// historyModel is a hub, and what it must have kept.
type historyModel struct {
	t      *testing.T
	r      *rand.Rand
	h      *Hub
	config Config
	kept   []*Message // oldest first
}

var historyChannels = []string{"a", "b", "c", "d"}

func cost(ms []*Message) (bytes int) {
	for _, m := range ms {
		bytes += m.cost()
	}
	return bytes
}

// bound removes what a bound excludes.
func (m *historyModel) bound() {
	count := make(map[string]int)
	var out []*Message
	for _, message := range slices.Backward(m.kept) {
		count[message.Channel]++
		most, age := m.config.History, m.config.HistoryAge
		for _, rule := range slices.Backward(m.config.Histories) {
			if rule.Matches(message.Channel) {
				most, age = rule.Count, rule.Age
			}
		}
		if count[message.Channel] <= most && (age == 0 || time.Since(message.Time) < age) {
			out = append(out, message)
		}
	}
	slices.Reverse(out)
	for cost(out) > m.config.HistoryBytes {
		out = out[1:]
	}
	m.kept = out
}

func (m *historyModel) publish(channel string, size int) uint64 {
	message := &Message{Channel: channel, Data: make([]byte, size)}
	if err := m.h.Publish(message); err != nil {
		m.t.Fatal(err)
	}
	m.kept = append(m.kept, message)
	return message.Seq
}

// subscribe connects one that wants a replay, to which something is published before it starts or after it.
func (m *historyModel) subscribe() {
	r := m.r
	channels := historyChannels[r.IntN(3):]
	channels = channels[:1+r.IntN(len(channels))]
	n := r.IntN(10)
	var want []uint64
	for _, message := range m.kept {
		if slices.Contains(channels, message.Channel) {
			want = append(want, message.Seq)
		}
	}
	want = want[max(0, len(want)-n):]
	c := newClient()
	c.blocks = r.IntN(2) == 0
	conn, _, err := m.h.Connect(Subscriber{Channels: channels, Replay: n}, options())
	if err != nil {
		m.t.Fatal(err)
	}
	early := r.IntN(2) == 0
	if early {
		conn.Start(c, nil)
	}
	live := m.publish(channels[0], 0)
	if !early {
		conn.Start(c, nil)
	}
	synctest.Wait()
	if got, _ := c.wait(0); !slices.Equal(got, append(want, live)) {
		m.t.Fatalf("with %+v, %d of %q: got %v, not %v and %d", m.config, n, channels, got, want, live)
	}
	conn.Done()
	synctest.Wait()
}

// TestHistoryStaysWithinItsBytes: a million messages on ten thousand channels, one of them busy.
func TestHistoryStaysWithinItsBytes(t *testing.T) {
	const limit = 4 << 20
	h := New(Config{History: 100, HistoryBytes: limit})
	defer closeHub(h)
	n := 1_000_000
	if testing.Short() {
		n /= 10
	}
	data := make([]byte, 100)
	for i := range n {
		channel := "busy"
		if i%2 == 0 {
			channel = fmt.Sprint(i % 20_000)
		}
		if err := h.Publish(&Message{Channel: channel, Data: data}); err != nil {
			t.Fatal(err)
		}
		if h.history.bytes.Load() > limit {
			t.Fatalf("%d bytes for %d messages", h.history.bytes.Load(), h.history.count)
		}
	}
	if len(h.channels) > h.history.count {
		t.Errorf("%d channels for %d messages", len(h.channels), h.history.count)
	}
	h.Configure(Config{})
	if len(h.channels) != 0 || h.history.bytes.Load() != 0 || h.history.oldest != nil {
		t.Errorf("history that was switched off: %d channels, %d bytes", len(h.channels), h.history.bytes.Load())
	}
}

// TestLongReplay: of a replay that is longer than a backlog may be the newest are sent, and what comes meanwhile after
// them.
func TestLongReplay(t *testing.T) {
	h := New(Config{History: 100})
	defer closeHub(h)
	var want []uint64
	for range 100 {
		m := &Message{Channel: "a", Data: bytes.Repeat([]byte("x"), paddedSize-maxFrameOverhead-2*len("a"))}
		if err := h.Publish(m); err != nil {
			t.Fatal(err)
		}
		want = append(want, m.Seq)
	}
	want = want[80:]
	o := options()
	o.Format = padded{}
	o.MaxBacklog = 20 * paddedSize
	c := newClient()
	c.window = 100
	conn, _, err := h.Connect(Subscriber{Channels: []string{"a"}, Replay: 100}, o)
	if err != nil {
		t.Fatal(err)
	}
	conn.Start(c, nil)
	want = append(want, publish(t, h, "a").Seq)
	waitFor(t, func() bool { return h.Subscribers("a") == 1 })
	c.open(1 << 30)
	waitFor(t, func() bool { return h.Stats().Deliveries == 21 && h.Stats().Backlog == 0 })
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, seq := range want {
		if got := binary.BigEndian.Uint64(c.got[i*paddedSize:]); got != seq {
			t.Fatalf("got %d, not %d, at %d", got, seq, i)
		}
	}
}

// padded is a format whose messages are large.
type padded struct{ seqs }

const paddedSize = MinBacklog / 2

func (padded) Append(dst []byte, run []*Message) []byte {
	for _, m := range run {
		dst = append(binary.BigEndian.AppendUint64(dst, m.Seq), make([]byte, paddedSize-8)...)
	}
	return dst
}

// TestKeys: a message with a key that is known is not published again.
func TestKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := New(Config{})
		c := connect(t, h, options(), "a", "b")
		send := func(channel, key string) uint64 {
			m := &Message{Channel: channel, Key: key}
			if err := h.Publish(m); err != nil {
				t.Fatal(err)
			}
			if m.Subscribers != 1 || m.ID() != FormatID(h.epoch, m.Seq) {
				t.Errorf("answered with %d subscribers, ID %s", m.Subscribers, m.ID())
			}
			return m.Seq
		}
		var got []uint64
		for _, m := range [][2]string{{"a", "1"}, {"a", "1"}, {"b", "1"}, {"a", "2"}, {"a", ""}, {"a", ""}, {"a", "1"}} {
			got = append(got, send(m[0], m[1]))
		}
		if want := []uint64{1, 1, 2, 3, 4, 5, 1}; !slices.Equal(got, want) {
			t.Errorf("the places are %v, not %v", got, want)
		}
		time.Sleep(repeatTime - time.Second)
		if seq := send("a", "1"); seq != 1 {
			t.Errorf("after less than two minutes: %d", seq)
		}
		time.Sleep(time.Second)
		if seq := send("a", "1"); seq != 6 {
			t.Errorf("after two minutes: %d", seq)
		}
		for _, m := range []*Message{
			{Channel: "a", Key: "1", Data: []byte("x")},
			{Channel: "a", Key: "1", Event: "x"},
			{Channel: "a", Key: "1", Kind: Binary},
		} {
			other := &Message{Channel: "a"}
			if err := h.Publish(other, m); err != ErrKeyReused || other.Seq != 0 {
				t.Errorf("another message with the key: %v, one before it is %d", err, other.Seq)
			}
		}
		synctest.Wait()
		if got, _ := c.wait(0); !slices.Equal(got, []uint64{1, 2, 3, 4, 5, 6}) {
			t.Errorf("delivered: %v", got)
		}
		c.conn.Done()
		closeHub(h)
	})
}
