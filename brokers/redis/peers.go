package redis

import (
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
	"github.com/redis/rueidis"
)

const (
	// maxSending is how many bytes of messages to other nodes may wait. More are dropped, since messages may be lost.
	maxSending = 16 << 20

	// maxCounted is how many channels one script has, so that the server is not held up: each takes it 1 to 2 microseconds.
	maxCounted = 1000

	// The number of the node that has sent a message is before it.
	senderBytes = 8
)

// counters is what the goroutine keeps that sends messages to other nodes, and sets and asks for counts. It does all that has
// come up in one round: messages, then numbers to set, of which the last of each channel counts, and then questions.
type counters struct {
	l      *log
	signal chan struct{}

	mu      sync.Mutex
	session *session
	closed  bool
	// Whoever may call the hub with a message. mu is held for Add, so that none comes when Close waits already.
	calling sync.WaitGroup
	todo    todo
}

// todo is what a round does.
type todo struct {
	sends   []sending
	bytes   int // of them
	counts  map[string]int
	set     []func(error)
	forget  map[uint64]bool
	answers []counting
}

type sending struct{ to, message string }

// counting is a call of Counts.
type counting struct {
	channels []string
	done     func([]map[uint64]int, error)
}

func (c *counters) init(l *log) { c.l, c.signal = l, make(chan struct{}, 1) }

// use and leave say which session there is.
func (c *counters) use(s *session) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.session = s
}

func (c *counters) leave(s *session) {
	c.mu.Lock()
	if c.session == s {
		c.session = nil
	}
	c.mu.Unlock()
	c.wake() // to end those who wait
}

func (c *counters) wake() {
	select {
	case c.signal <- struct{}{}:
	default:
	}
}

// add has the next round do something. It returns an error if there is nothing that could do it.
func (c *counters) add(what func(*todo)) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closed || c.l.closed.Load():
		return broker.ErrClosed
	case c.session == nil:
		return broker.ErrDown
	}
	what(&c.todo)
	c.wake()
	return nil
}

// Send implements broker.Peers.
func (l *log) Send(to uint64, message []byte) {
	channel := l.everybody
	if to != 0 {
		channel = l.peerName(to)
	}
	text := rueidis.BinaryString(append(binary.LittleEndian.AppendUint64(make([]byte, 0, senderBytes+len(message)), l.node), message...))
	l.counters.add(func(t *todo) {
		if t.bytes += len(text); t.bytes <= maxSending {
			t.sends = append(t.sends, sending{channel, text})
		} else {
			t.bytes -= len(text)
		}
	})
}

// peerName is the server's channel for messages to a node.
func (l *log) peerName(node uint64) string { return l.prefix + "p:" + strconv.FormatUint(node, 16) }

// receiveMessage takes a message of another node. What this node has sent to all comes back.
func (l *log) receiveMessage(text string) {
	if l.message == nil || len(text) < senderBytes {
		return
	}
	from := binary.LittleEndian.Uint64([]byte(text[:senderBytes]))
	c := &l.counters
	c.mu.Lock()
	ok := from != l.node && !c.closed && !l.closed.Load()
	if ok {
		c.calling.Add(1)
	}
	c.mu.Unlock()
	if ok {
		defer c.calling.Done()
		l.message(from, []byte(text[senderBytes:]))
	}
}

// SetCounts implements broker.Peers.
func (l *log) SetCounts(counts map[string]int, done func(error)) {
	err := l.counters.add(func(t *todo) {
		if t.counts == nil {
			t.counts = map[string]int{}
		}
		maps.Copy(t.counts, counts)
		t.set = append(t.set, done)
	})
	if err != nil {
		done(err)
	}
}

// Counts implements broker.Peers.
func (l *log) Counts(channels []string, done func([]map[uint64]int, error)) {
	if err := l.counters.add(func(t *todo) { t.answers = append(t.answers, counting{channels, done}) }); err != nil {
		done(nil, err)
	}
}

// Forget implements broker.Peers. While the server cannot be reached nothing is forgotten: later the node might be back.
func (l *log) Forget(node uint64) {
	l.counters.add(func(t *todo) {
		if t.forget == nil {
			t.forget = map[uint64]bool{}
		}
		t.forget[node] = true
	})
}

// count does rounds.
func (l *log) count() {
	defer l.running.Done()
	c := &l.counters
	for {
		select {
		case <-l.done:
			c.mu.Lock()
			c.closed = true
			t := c.todo
			c.todo = todo{}
			c.mu.Unlock()
			t.end(broker.ErrClosed)
			c.calling.Wait()
			return
		case <-c.signal:
		}
		c.mu.Lock()
		s, t := c.session, c.todo
		c.todo = todo{}
		c.mu.Unlock()
		if s == nil {
			t.end(l.unlessDone(broker.ErrDown))
			continue
		}
		t.round(l, s)
	}
}

// end answers everything.
func (t *todo) end(err error) {
	for _, done := range t.set {
		done(err)
	}
	for _, a := range t.answers {
		a.done(nil, err)
	}
}

// round does what there is to do, over a session.
func (t *todo) round(l *log, s *session) {
	ctx, cancel := context.WithTimeout(context.Background(), requestTimeout)
	defer cancel()
	err := s.send(ctx, t.sends)
	if err == nil && len(t.set) > 0 {
		// After an error some parts may be stored and others not, so the callers have to set all numbers again.
		err = s.setCounts(ctx, l.node, t.counts)
		for _, done := range t.set {
			done(l.unlessSet(err))
		}
		t.set = nil
	}
	for node := range t.forget {
		if err == nil {
			_, err = s.eval(ctx, s.client, countScript, s.counter(node))
		}
	}
	for _, a := range t.answers {
		var counts []map[uint64]int
		if err == nil {
			counts, err = s.counts(ctx, a.channels)
		}
		a.done(counts, l.unlessDone(err))
	}
	t.answers = nil
	if err != nil {
		t.end(l.unlessDone(err))
		if ends(err) {
			s.fail("reconnect", err)
		}
	}
}

// unlessDone returns the error for calls that were not carried out.
func (l *log) unlessDone(err error) error {
	if err != nil && l.closed.Load() {
		return broker.ErrClosed
	}
	return wrapDown(err)
}

// unlessSet returns the error for numbers that may or may not have been stored.
func (l *log) unlessSet(err error) error {
	if err == nil || l.closed.Load() {
		return l.unlessDone(err)
	}
	return fmt.Errorf("%w (%w)", broker.ErrUnknown, err)
}

// send publishes messages to other nodes.
func (s *session) send(ctx context.Context, sends []sending) error {
	var commands []rueidis.Completed
	for _, m := range sends {
		commands = append(commands, s.client.B().Publish().Channel(m.to).Message(m.message).Build())
	}
	for _, r := range s.client.DoMulti(ctx, commands...) {
		// What the server refuses is lost, as any message may be.
		if err := r.Error(); ends(err) {
			return err
		}
	}
	return nil
}

// counter returns what the script is told of a node, with room for more.
func (s *session) counter(node uint64) []string {
	return []string{s.l.prefix, s.l.id, strconv.FormatUint(s.generation, 10), strconv.FormatUint(node, 10)}
}

// setCounts sets numbers of this node.
func (s *session) setCounts(ctx context.Context, node uint64, counts map[string]int) error {
	names := slices.Collect(maps.Keys(counts))
	for group := range slices.Chunk(names, maxCounted) {
		args := s.counter(node)
		for _, name := range group {
			args = append(args, name, strconv.Itoa(max(0, counts[name])))
		}
		m, err := s.eval(ctx, s.client, countScript, args)
		if err != nil {
			return err
		}
		if text, _ := m.ToString(); text != "K" {
			return errFence
		}
	}
	return nil
}

// counts asks for the numbers of channels.
func (s *session) counts(ctx context.Context, channels []string) (counts []map[uint64]int, err error) {
	counts = make([]map[uint64]int, 0, len(channels))
	for group := range slices.Chunk(channels, maxCounted) {
		m, err := s.eval(ctx, s.client, countsScript, append([]string{s.l.prefix}, group...))
		if err != nil {
			return nil, err
		}
		answers, err := m.ToArray()
		if err != nil || len(answers) != len(group) {
			return nil, errAnswer
		}
		for _, a := range answers {
			list, err := a.AsStrSlice()
			if err != nil {
				return nil, errAnswer
			}
			counts = append(counts, parseCounts(list))
		}
	}
	return counts, nil
}

// parseCounts reads a list of nodes and numbers. What no node has set is left out.
func parseCounts(list []string) map[uint64]int {
	byNode := make(map[uint64]int, len(list)/2)
	for i := 0; i+1 < len(list); i += 2 {
		node, err1 := strconv.ParseUint(list[i], 10, 64)
		n, err2 := strconv.ParseInt(list[i+1], 10, 64)
		if err1 == nil && err2 == nil && n > 0 {
			byNode[node] = int(n)
		}
	}
	return byNode
}
