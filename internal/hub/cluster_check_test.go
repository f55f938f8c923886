package hub

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// trace is a format that shows all that a connection is told, a line each. A gap comes with the newest position that the log
// has then: what is missing after that is not excused by it.
type trace struct{ c *cluster }

func (trace) Append(dst []byte, run []*Message) []byte {
	for _, m := range run {
		dst = fmt.Appendf(dst, "message %s %s %s\n", m.Channel, m.ID(), m.Data)
	}
	return dst
}

func (trace) Ping() []byte { return nil }

func (trace) Close(why Reason, _ string) []byte { return fmt.Appendf(nil, "closed %v\n", why) }

func (t trace) Gap(channels []string) []byte {
	epoch, seq := t.c.memory.Position()
	return fmt.Appendf(nil, "gap %s %s-%d\n", strings.Join(channels, ","), epoch, seq)
}

// lines returns what the client was told.
func (k *clusterClient) lines() []string {
	k.client.mu.Lock()
	defer k.client.mu.Unlock()
	return strings.Split(strings.TrimSuffix(string(k.client.got), "\n"), "\n")
}

// position returns where the client would resume: after the last message, or, before the first, where the hello says.
func (k *clusterClient) position() string {
	id := k.lastID
	for _, line := range k.lines() {
		switch f := strings.Fields(line); f[0] {
		case "hello":
			id = f[1]
		case "message":
			id = f[2]
		}
	}
	return id
}

// check returns what is wrong with what the clients were told, and with the publishers' answers.
func (c *cluster) check() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.running > 0 {
		c.wrong = append(c.wrong, fmt.Sprintf("%d calls do not return", c.running))
	}
	ref := c.reference()
	for _, k := range c.clients {
		if k.conn != nil {
			v := &clusterCheck{ref: ref, client: k, tracks: make(map[string]*track), owned: c.owned(k)}
			v.run()
			c.wrong = append(c.wrong, v.wrong...)
		}
	}
	c.checkAnswers(ref)
	return c.wrong
}

// reference is what the log has stored, by epoch.
type reference struct {
	last   string // the epoch
	epochs map[string]map[uint64]storedEntry
	seqs   map[string]map[string][]uint64 // by epoch and channel, in order
}

type storedEntry struct{ channel, data string }

func (c *cluster) reference() *reference {
	r := &reference{epochs: make(map[string]map[uint64]storedEntry), seqs: make(map[string]map[string][]uint64)}
	for _, s := range c.memory.Stored() {
		r.last = s.Epoch
		r.epochs[s.Epoch], r.seqs[s.Epoch] = make(map[uint64]storedEntry), make(map[string][]uint64)
		times := make(map[string]int)
		for _, e := range s.Entries {
			data := string(e.Data)
			if r.epochs[s.Epoch][e.Seq].data != "" {
				c.wrong = append(c.wrong, fmt.Sprintf("position %s-%d was given twice", s.Epoch, e.Seq))
			}
			if times[data]++; times[data] == 2 {
				c.wrong = append(c.wrong, fmt.Sprintf("message %s was stored twice in %s", data, s.Epoch))
			}
			r.epochs[s.Epoch][e.Seq] = storedEntry{e.Channel, data}
			r.seqs[s.Epoch][e.Channel] = append(r.seqs[s.Epoch][e.Channel], e.Seq)
		}
	}
	return r
}

// has reports whether a message is where an ack says.
func (r *reference) has(m *clusterMessage, id string) bool {
	epoch, seq, _ := parseID(id)
	return r.epochs[epoch][seq] == storedEntry{m.channel, m.data}
}

// owned returns the data that a client has published and gets no echo of.
func (c *cluster) owned(k *clusterClient) map[string]bool {
	owned := make(map[string]bool)
	for _, m := range c.sent {
		if m.from == k {
			owned[m.data] = true
		}
	}
	return owned
}

// checkAnswers checks that a publisher who has an ack has the position of its message, and one who was told that nothing was
// published is right.
func (c *cluster) checkAnswers(ref *reference) {
	for _, m := range c.sent {
		published := m.key != "" // it may be, by another call
		for _, a := range m.answers {
			switch {
			case a.err == nil:
				published = true
				if !ref.has(m, a.id) {
					c.wrong = append(c.wrong, fmt.Sprintf("message %s was acked at %s, where it is not", m.data, a.id))
				}
			case errors.Is(a.err, ErrUnknown):
				published = true
			case !errors.Is(a.err, ErrDown) && !errors.Is(a.err, ErrClosed):
				c.wrong = append(c.wrong, fmt.Sprintf("message %s was answered with %v", m.data, a.err))
			}
		}
		for epoch, entries := range ref.epochs {
			for seq, e := range entries {
				if e.data == m.data && !published {
					c.wrong = append(c.wrong, fmt.Sprintf("message %s is at %s-%d, but its publisher was told: %v", m.data, epoch, seq, m.answers))
				}
			}
		}
	}
}

// clusterCheck compares what one connection was told with the reference log: every message after its position of each of
// its channels, once and in order, or a gap that was told of.
type clusterCheck struct {
	ref    *reference
	client *clusterClient
	owned  map[string]bool
	wrong  []string

	epoch  string
	pos    uint64 // of the newest message
	tracks map[string]*track
}

// track is what is known of one channel of a connection.
type track struct {
	last uint64            // everything up to here has come, or was not due
	gaps map[string]uint64 // by epoch: up to where messages may be missing
}

// excuse notes that a gap was told of when the log was at a position.
func (t *track) excuse(upTo string) {
	epoch, seq, _ := parseID(upTo)
	t.gaps[epoch] = max(t.gaps[epoch], seq)
}

// excused reports whether a gap was told of when the log had a position. In a later epoch it has had all of those before.
func (t *track) excused(epoch string, seq uint64) bool {
	for at, upTo := range t.gaps {
		if at == epoch && seq <= upTo || epochNumber(at) > epochNumber(epoch) {
			return true
		}
	}
	return false
}

func (v *clusterCheck) fail(format string, args ...any) {
	v.wrong = append(v.wrong, fmt.Sprintf("client %d: %s\n\t%s", v.client.number, fmt.Sprintf(format, args...), strings.Join(v.client.lines(), "\n\t")))
}

func (v *clusterCheck) run() {
	closed := v.client.gone
	for _, line := range v.client.lines() {
		switch f := strings.Split(line, " "); f[0] {
		case "hello":
			v.hello(f[1], f[2], f[3])
		case "join":
			v.join(f[1], f[2], f[3], strings.TrimPrefix(f[4], "after:"), f[5] != "gaps:")
		case "missed", "message":
			v.message(f[0] == "message", f[1], f[2], f[3])
		case "gap":
			names := strings.Split(f[1], ",")
			for name, t := range v.tracks {
				if slices.Contains(names, name) || f[1] == "*" {
					t.excuse(f[2])
				}
			}
		case "left":
			delete(v.tracks, f[1])
		case "closed":
			closed = true
		case "":
		default:
			v.fail("was told %q", line)
		}
		if len(v.wrong) > 0 {
			return
		}
	}
	if !closed {
		v.end()
	}
}

// begin begins to track a channel, from a position on, or after an ID that the client came with.
func (v *clusterCheck) begin(name, id, upTo, after string, gap bool) {
	_, seq, _ := parseID(id)
	t := &track{last: seq, gaps: make(map[string]uint64)}
	v.tracks[name] = t
	if gap {
		t.excuse(upTo)
		return
	}
	if after == "" {
		return
	}
	epoch, from, _ := parseID(after)
	if t.last = from; epoch != v.epoch {
		v.fail("resumed %s after %s in epoch %s, and was told of no gap", name, after, v.epoch)
	} else if seq < from {
		v.fail("came with %s and was given %s", after, id)
	}
}

func (v *clusterCheck) hello(id, upTo, gaps string) {
	v.epoch, v.pos, _ = parseID(id)
	if epoch, seq, _ := parseID(upTo); epoch == v.epoch && v.pos > seq {
		v.fail("was given %s when the log was at %s", id, upTo)
	}
	lost := strings.Split(gaps, ",")
	for _, name := range v.client.channels {
		v.begin(name, id, upTo, v.client.lastID, slices.Contains(lost, name))
	}
}

func (v *clusterCheck) join(name, id, upTo, after string, gap bool) {
	epoch, _, _ := parseID(id)
	v.enter(epoch)
	v.begin(name, id, upTo, after, gap)
}

// enter goes to another epoch, if it is one. A gap has to be told of each channel when that has begun.
func (v *clusterCheck) enter(epoch string) {
	if epoch == v.epoch {
		return
	}
	for name, t := range v.tracks {
		if !t.excused(epoch, 0) {
			v.fail("was told of no gap of %s when epoch %s began", name, epoch)
		}
		t.last = 0
	}
	v.epoch, v.pos = epoch, 0
}

// epochNumber returns how many epochs a brokertest.Memory has had: its epochs are called memory<log>x<number>.
func epochNumber(epoch string) int {
	_, number, _ := strings.Cut(epoch, "x")
	n, err := strconv.Atoi(number)
	if err != nil {
		panic("not an epoch of brokertest.Memory: " + epoch)
	}
	return n
}

func (v *clusterCheck) message(live bool, name, id, data string) {
	epoch, seq, _ := parseID(id)
	v.enter(epoch)
	t := v.tracks[name]
	switch e := v.ref.epochs[epoch][seq]; {
	case e.channel != name || e.data != data:
		v.fail("got %s of %s as %s, where %q of %q is", data, name, id, e.data, e.channel)
		return
	case t == nil:
		v.fail("got %s of %s, which it is not on", id, name)
		return
	case live && seq <= v.pos:
		v.fail("got %s after %d", id, v.pos)
	case seq <= t.last:
		v.fail("got %s after %d of %s", id, t.last, name)
	case live && v.owned[data]:
		v.fail("got an echo of %s", data)
	}
	v.missing(name, t, seq)
	t.last = seq
	if live {
		v.pos = seq
	}
}

// missing checks that of what did not come of a channel before a position the client was told first.
func (v *clusterCheck) missing(name string, t *track, before uint64) {
	for _, seq := range v.ref.seqs[v.epoch][name] {
		if seq > t.last && seq < before && !t.excused(v.epoch, seq) && !v.owned[v.ref.epochs[v.epoch][seq].data] {
			v.fail("misses %s-%d of %s (before %d), and was told of no gap", v.epoch, seq, name, before)
		}
	}
}

// end checks that a connection that is still there has everything.
func (v *clusterCheck) end() {
	if len(v.tracks) > 0 {
		v.enter(v.ref.last)
	}
	for name, t := range v.tracks {
		v.missing(name, t, math.MaxUint64)
	}
}
