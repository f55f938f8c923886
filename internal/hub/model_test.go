package hub

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"
)

// TestModel runs random subscribes, publishes and closes against the simplest model there is: a list of what each
// connection must have got, kept by the one who does it all in turn.
func TestModel(t *testing.T) {
	seed := rand.Uint64()
	for round := range 200 {
		if !t.Run(fmt.Sprint("seed ", seed, ",", round), func(t *testing.T) { runModel(t, rand.New(rand.NewPCG(seed, uint64(round)))) }) {
			return
		}
	}
}

func runModel(t *testing.T, r *rand.Rand) {
	m := &model{t: t, r: r, h: New(Config{History: 10_000})}
	defer func() { closeHub(m.h) }()
	for range 400 {
		switch k := r.IntN(20); {
		case k == 0 && r.IntN(5) == 0:
			m.restart()
		case k < 3:
			m.connect()
		case k < 5 && len(m.open) > 0:
			m.closeOne()
		case k < 8 && len(m.open) > 0:
			m.joinOrLeave()
		case k < 9 && len(m.open) > 0:
			m.takeOver()
		case k < 12:
			m.emit()
		default:
			m.publish()
		}
	}
	m.check()
}

// model is a hub, and what its connections must have got.
type model struct {
	t          *testing.T
	r          *rand.Rand
	h          *Hub
	open, left []*expected
	names      int
	log        []*Message // copies
}

var modelChannels = []string{"a", "b", "c", "d", "e"}

// expected is a connection, and what it must have got.
type expected struct {
	*client
	channels []string
	want     []uint64
	noEcho   bool
	name     string
	given    int // where in model.log it was given its name
}

func (m *model) connect() {
	r := m.r
	e := &expected{client: newClient(), noEcho: r.IntN(2) == 0}
	for _, i := range r.Perm(len(modelChannels))[:r.IntN(4)] {
		e.channels = append(e.channels, modelChannels[i])
	}
	o := options()
	o.Format = seqs{name: modelChannels[r.IntN(2)]}
	o.MaxBacklog = 1 << 20
	e.blocks = r.IntN(3) == 0
	if r.IntN(3) == 0 {
		own := rand.New(rand.NewPCG(r.Uint64(), 0))
		e.random = own.IntN
	}
	conn, _, err := m.h.Connect(Subscriber{Channels: e.channels}, o)
	if err != nil {
		m.t.Fatal(err)
	}
	e.conn = conn
	m.open = append(m.open, e)
	if r.IntN(2) == 0 {
		m.names++
		e.name, e.given = fmt.Sprint("n", m.names), len(m.log)
		enter(m.t, e.client, Entrance{Name: e.name, Keep: true})
	}
	if r.IntN(2) == 0 { // what is published before the start waits
		message := publish(m.t, m.h, "a")
		for _, e := range m.open {
			if slices.Contains(e.channels, "a") {
				e.want = append(e.want, message.Seq)
			}
		}
		m.log = append(m.log, message)
	}
	conn.Start(e, nil)
}

func (m *model) closeOne() {
	i := m.r.IntN(len(m.open))
	e := m.open[i]
	m.open = slices.Delete(m.open, i, i+1)
	m.left = append(m.left, e)
	e.conn.Close(ReasonClient, "")
}

func (m *model) joinOrLeave() {
	e := m.open[m.r.IntN(len(m.open))]
	name := modelChannels[m.r.IntN(len(modelChannels))]
	if i := slices.Index(e.channels, name); i >= 0 && m.r.IntN(2) == 0 {
		e.channels = slices.Delete(slices.Clone(e.channels), i, i+1)
		m.changeOr(e, DoLeave, name, func() error { return e.conn.Leave(name, nil) })
		if err := e.conn.Leave(name, nil); err != ErrNotJoined {
			m.t.Fatal(err)
		}
		return
	} else if i < 0 {
		e.channels = append(slices.Clone(e.channels), name)
	}
	m.changeOr(e, DoJoin, name, func() error {
		return e.conn.Join(name, "", func(Welcome, []*Message) []byte { return nil })
	})
}

// changeOr has a backend change the channels of a connection, or the client itself, which comes to the same.
func (m *model) changeOr(e *expected, do, channel string, itself func() error) {
	m.t.Helper()
	if m.r.IntN(2) == 0 {
		if err := itself(); err != nil {
			m.t.Fatal(err)
		}
		return
	}
	n, err := m.h.Change(Change{Do: do, Connection: e.conn.ID(), Channel: channel})
	if err != nil || n != (Changed{Done: 1}) {
		m.t.Fatalf("%s %s: %+v, %v", do, channel, n, err)
	}
}

// publish publishes one message or several at once, from a connection or not.
func (m *model) publish() {
	r := m.r
	var ms []*Message
	var from *expected
	if len(m.open) > 0 && r.IntN(4) == 0 {
		from = m.open[r.IntN(len(m.open))]
	}
	for range 1 + r.IntN(3)*r.IntN(3) {
		message := &Message{Channel: modelChannels[r.IntN(len(modelChannels))], Data: make([]byte, r.IntN(10))}
		message.Transient = r.IntN(6) == 0
		if r.IntN(3) == 0 {
			message.Conflate = NewConflateKey(fmt.Sprint("key ", r.IntN(3)))
		}
		if from != nil {
			message.From, message.NoEcho = from.conn, from.noEcho
		}
		ms = append(ms, message)
	}
	if err := m.h.Publish(ms...); err != nil {
		m.t.Fatal(err)
	}
	m.log = append(m.log, ms...)
	for _, message := range ms {
		subscribers := 0
		for _, e := range m.open {
			if !slices.Contains(e.channels, message.Channel) {
				continue
			}
			subscribers++
			if e != from || !e.noEcho {
				e.want = append(e.want, message.Seq)
			}
		}
		if message.Subscribers != subscribers {
			m.t.Fatalf("message %d had %d subscribers, not %d", message.Seq, subscribers, message.Subscribers)
		}
	}
}

// check compares what the connections got with what they must have got.
func (m *model) check() {
	for _, e := range m.open {
		if got, _ := e.wait(len(e.want)); !slices.Equal(got, e.want) {
			m.t.Fatalf("an open connection on %q got %v, not %v", e.channels, got, e.want)
		}
	}
	for _, e := range m.left {
		got, why := e.wait(len(e.want) + 1)
		if !slices.Equal(got, e.want) || why != ReasonClient {
			m.t.Fatalf("a closed connection on %q got %v and %v, not %v", e.channels, got, why, e.want)
		}
		e.conn.Done()
	}
	for _, e := range m.open {
		e.conn.Done()
	}
}

// TestConcurrent has publishers, and connections that come and go, all at once: what a connection gets is what was
// published on its channels in one stretch of the log, in its order.
func TestConcurrent(t *testing.T) {
	const publishers, each, readers, rounds = 4, 2000, 8, 40
	c := &concurrent{t: t, h: New(Config{}), channelOf: make(map[uint64]string)}
	var wg sync.WaitGroup
	for range publishers {
		wg.Go(func() {
			for range each {
				c.publish()
			}
		})
	}
	for range readers {
		wg.Go(func() {
			for range rounds {
				c.visit()
			}
		})
	}
	done := make(chan struct{})
	var serving sync.WaitGroup
	serving.Go(func() { c.serve(done) })
	wg.Wait()
	close(done)
	serving.Wait()
	closeHub(c.h)
	for _, v := range c.visits {
		v.check(t, c.channelOf)
	}
}

// concurrent is what the publishers and readers of TestConcurrent share.
type concurrent struct {
	t         *testing.T
	h         *Hub
	mu        sync.Mutex
	channelOf map[uint64]string
	visits    []visit
}

var concurrentChannels = []string{"a", "b", "c"}

func (c *concurrent) publish() {
	m := &Message{Channel: concurrentChannels[rand.IntN(len(concurrentChannels))], Data: []byte("x")}
	if err := c.h.Publish(m); err != nil {
		c.t.Error(err)
	}
	c.mu.Lock()
	c.channelOf[m.Seq] = m.Channel
	c.mu.Unlock()
}

// serve publishes to readers who wait for messages after the publishers' last.
func (c *concurrent) serve(done <-chan struct{}) {
	for {
		select {
		case <-done:
			return
		default:
			m := publish(c.t, c.h, "a")
			c.mu.Lock()
			c.channelOf[m.Seq] = "a"
			c.mu.Unlock()
			time.Sleep(time.Millisecond)
		}
	}
}

// visit connects, waits for some messages, and closes.
func (c *concurrent) visit() {
	channels := concurrentChannels[:1+rand.IntN(len(concurrentChannels))]
	o := options()
	o.MaxBacklog = 1 << 30
	reader := connect(c.t, c.h, o, channels...)
	reader.wait(rand.IntN(50))
	reader.conn.Close(ReasonClient, "")
	reader.mu.Lock()
	for !bytes.HasSuffix(reader.got, seqs{}.Close(ReasonClient, "")) {
		reader.changed.Wait()
	}
	reader.mu.Unlock()
	reader.conn.Done()
	got, _ := reader.wait(0)
	c.mu.Lock()
	c.visits = append(c.visits, visit{channels, reader.conn.startSeq, got})
	c.mu.Unlock()
}

// visit is what a connection got.
type visit struct {
	channels []string
	since    uint64
	got      []uint64
}

func (v visit) check(t *testing.T, channelOf map[uint64]string) {
	if len(v.got) == 0 {
		return
	}
	var want []uint64
	for seq := v.since + 1; seq <= v.got[len(v.got)-1]; seq++ {
		if slices.Contains(v.channels, channelOf[seq]) {
			want = append(want, seq)
		}
	}
	if !slices.Equal(v.got, want) {
		t.Fatalf("on %q since %d: got %v, not %v", v.channels, v.since, v.got, want)
	}
}
