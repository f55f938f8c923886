package hub

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// device is a client that comes back whenever it is cut off, and resumes where it was.
type device struct {
	channels []string
	pos      string   // resumes after it
	seq      uint64   // the same
	got      []uint64 // all that it was sent
	excused  []stretch
	reached  atomic.Uint64 // seq, for the publishers
}

// stretch is what a gap told of: messages of the channels after from, up to to.
type stretch struct {
	channels []string
	from, to uint64
}

// visit connects, takes some messages, and is cut off at no particular place.
func (d *device) visit(t *testing.T, h *Hub, r *rand.Rand) {
	c := newClient()
	c.blocks = r.IntN(2) == 0
	c.window = r.IntN(400) // its last message may be cut in two
	o := options()
	o.MaxBacklog = 1 << 30
	conn, w, err := h.Connect(Subscriber{Channels: d.channels, LastID: d.pos}, o)
	if err != nil {
		t.Error(err)
		return
	}
	if d.pos == "" || w.Gaps != nil {
		d.reached.Store(conn.startSeq) // what came before does not come any more
	}
	if d.pos == "" {
		d.seq = conn.startSeq
	} else if w.Resumed != (w.Gaps == nil) {
		t.Errorf("resumed %v, lost %q", w.Resumed, w.Gaps)
	}
	if w.Gaps != nil {
		d.excused = append(d.excused, stretch{w.Gaps, d.seq, conn.startSeq})
	}
	c.conn = conn
	conn.Start(c, nil)
	if n := r.IntN(30); n > 0 {
		c.mu.Lock()
		for len(c.got) < min(8*n, c.window) && !c.closed {
			c.changed.Wait()
		}
		c.mu.Unlock()
	}
	c.Close()
	conn.Done()
	got, _ := c.wait(0)
	d.got = append(d.got, got...)
	_, d.seq, _ = parseID(w.ID)
	if len(got) > 0 {
		d.seq = got[len(got)-1]
	}
	d.pos = FormatID(h.epoch, d.seq)
	d.reached.Store(d.seq)
}

// check compares what a device got with what was published.
func (d *device) check(t *testing.T, channelOf map[uint64]string, from uint64) {
	next := 0
	for seq := from + 1; seq <= d.seq; seq++ {
		name, ok := channelOf[seq]
		if !ok || !slices.Contains(d.channels, name) {
			continue
		}
		if next < len(d.got) && d.got[next] == seq {
			next++
			continue
		}
		if !slices.ContainsFunc(d.excused, func(s stretch) bool {
			return slices.Contains(s.channels, name) && seq > s.from && seq <= s.to
		}) {
			t.Fatalf("on %q: message %d of %q is not where it belongs: %v", d.channels, seq, name, d.got[max(0, next-3):min(len(d.got), next+3)])
		}
	}
	if next != len(d.got) {
		t.Fatalf("on %q: %v are too many", d.channels, d.got[next:])
	}
}

// TestResume: devices that are cut off and come back, thousands of times, get every message of their channels once and
// in order while others publish, as long as history has all of it; and else are told.
func TestResume(t *testing.T) {
	for _, c := range []struct {
		name    string
		options Config
		lossy   bool
	}{
		{"all is kept", Config{History: 1 << 20, HistoryBytes: 1 << 30}, false},
		{"some is kept", Config{History: 20}, true},
		{"few bytes are kept", Config{History: 100, HistoryBytes: 10_000}, true},
		{"nothing is kept", Config{}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			gaps := runResume(t, c.options)
			if !c.lossy && gaps > 0 {
				t.Errorf("%d gaps, though all was kept", gaps)
			}
			if c.lossy && gaps == 0 {
				t.Error("no gap, though little was kept")
			}
		})
	}
}

// runResume has devices come and go while others publish, checks what they got, and returns how often they were told of
// a gap.
func runResume(t *testing.T, c Config) (gaps int) {
	seed := rand.Uint64()
	t.Log("seed", seed)
	p := &pursued{t: t, h: New(c), channelOf: make(map[uint64]string), devices: []*device{{}, {}, {}, {}}}
	defer closeHub(p.h)
	stop := make(chan struct{})
	var publishers, devices sync.WaitGroup
	for range 2 {
		publishers.Go(func() { p.publish(stop) })
	}
	from := make([]uint64, len(p.devices))
	for i, d := range p.devices {
		r := rand.New(rand.NewPCG(seed, uint64(i)))
		d.channels = resumeChannels[i : i+1+r.IntN(len(resumeChannels)-i)]
		devices.Go(func() {
			for n := range 700 {
				d.visit(t, p.h, r)
				if n == 0 {
					from[i] = d.seq
					d.got = nil
				}
			}
			d.reached.Store(1 << 60)
		})
	}
	devices.Wait()
	close(stop)
	publishers.Wait()
	for i, d := range p.devices {
		gaps += len(d.excused)
		d.check(t, p.channelOf, from[i])
	}
	return gaps
}

var resumeChannels = []string{"a", "b", "c", "d", "e"}

// pursued are publishers that the devices keep up with.
type pursued struct {
	t         *testing.T
	h         *Hub
	devices   []*device
	mu        sync.Mutex
	channelOf map[uint64]string // what was published
}

func (p *pursued) publish(stop <-chan struct{}) {
	for last := uint64(0); ; {
		select {
		case <-stop:
			return
		default:
		}
		if slices.ContainsFunc(p.devices, func(d *device) bool { return last > d.reached.Load()+1000 }) {
			time.Sleep(10 * time.Microsecond) // or the devices only ever catch up
			continue
		}
		m := &Message{Channel: resumeChannels[rand.IntN(len(resumeChannels))], Data: []byte("x")}
		if err := p.h.PublishWait(m); err != nil {
			p.t.Error(err)
			return
		}
		last = m.Seq
		p.mu.Lock()
		p.channelOf[m.Seq] = m.Channel
		p.mu.Unlock()
	}
}

// publishedHub has a hub that keeps three messages a channel: 1, 3 … 9 were on a, 2, 4 … 10 on b, and 11 on quiet.
func publishedHub(t *testing.T) *Hub {
	h := New(Config{History: 3})
	for i := range 10 {
		publish(t, h, string(rune('a'+i%2)))
	}
	h.Connect(Subscriber{Channels: []string{"b"}}, options())
	publish(t, h, "quiet")
	return h
}

// TestResumeAfter: what an ID resumes.
func TestResumeAfter(t *testing.T) {
	h := publishedHub(t)
	defer closeHub(h)
	for _, c := range []struct {
		name     string
		id       string
		channels string
		first    uint64 // of what is replayed; 0 is nothing
		n        int
		lost     string
	}{
		{"the last message", FormatID(h.epoch, 11), "a b", 0, 0, ""},
		{"a recent message", FormatID(h.epoch, 8), "a b", 9, 2, ""},
		{"the message before the oldest", FormatID(h.epoch, 4), "a b", 5, 6, ""},
		{"one too old for a channel", FormatID(h.epoch, 3), "a b", 5, 3, "b"},
		{"the beginning, on busy channels", FormatID(h.epoch, 0), "a b", 0, 0, "a b"},
		{"the beginning, on a quiet channel", FormatID(h.epoch, 0), "quiet", 11, 1, ""},
		{"the beginning, on an unknown channel", FormatID(h.epoch, 0), "unknown", 0, 0, ""},
		{"a message of the future", FormatID(h.epoch, 12), "a b", 0, 0, "a b"},
		{"another epoch", FormatID("other", 8), "a b", 0, 0, "a b"},
		{"a leading zero", h.epoch + "-08", "a", 0, 0, "a"},
		{"a sign", h.epoch + "-+8", "a", 0, 0, "a"},
		{"no number", h.epoch + "-", "a", 0, 0, "a"},
		{"no dash", h.epoch, "a", 0, 0, "a"},
		{"only a dash", "-", "a", 0, 0, "a"},
		{"a long ID", strings.Repeat("x", 1000), "a", 0, 0, "a"},
		{"a huge number", h.epoch + "-99999999999999999999999", "a", 0, 0, "a"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h.mu.Lock()
			ms, w := h.replayFromLocked(&hearer{}, strings.Fields(c.channels), c.id, 0, MinBacklog)
			h.mu.Unlock()
			first, id := uint64(0), FormatID(h.epoch, h.seq)
			if len(ms) > 0 {
				first = ms[0].Seq
				id = FormatID(h.epoch, first-1)
			}
			if len(ms) != c.n || first != c.first || strings.Join(w.Gaps, " ") != c.lost || w.Resumed != (c.lost == "") || w.ID != id {
				t.Errorf("%s on %s: %d messages from %d, %+v", c.id, c.channels, len(ms), first, w)
			}
		})
	}
}

// TestResumeForgotten: a channel that nobody needs is forgotten, but not that it has lost something.
func TestResumeForgotten(t *testing.T) {
	h := publishedHub(t)
	defer closeHub(h)
	h.Configure(Config{})
	if len(h.channels) != 1 {
		t.Errorf("%d channels are left", len(h.channels))
	}
	h.Configure(Config{History: 3})
	h.mu.Lock()
	_, w := h.replayFromLocked(&hearer{}, []string{"a", "b", "quiet"}, FormatID(h.epoch, 10), 0, MinBacklog)
	h.mu.Unlock()
	if fmt.Sprint(w.Gaps) != "[a quiet]" {
		t.Errorf("after the history was switched off: lost %q", w.Gaps)
	}
}

// TestJoinResumes: a channel that is joined with a position starts with what was missed, in one piece with the answer,
// and goes on with what is published meanwhile.
func TestJoinResumes(t *testing.T) {
	h := New(Config{History: 1 << 20, HistoryBytes: 1 << 30})
	defer closeHub(h)
	for round := range 200 {
		name := fmt.Sprint("c", round)
		for range rand.IntN(50) {
			publish(t, h, name)
		}
		c := connect(t, h, options(), "other")
		var published sync.WaitGroup
		published.Go(func() {
			for range 100 {
				publish(t, h, name)
			}
		})
		pieces := 0
		err := c.conn.Join(name, FormatID(h.epoch, 0), func(w Welcome, ms []*Message) []byte {
			if !w.Resumed {
				t.Errorf("lost %q", w.Gaps)
			}
			pieces++
			return seqs{}.Append(nil, ms)
		})
		if err != nil {
			t.Fatal(err)
		}
		published.Wait()
		h.mu.Lock()
		var want []uint64
		for s := h.channels[name].history.oldest; s != nil; s = s.newer() {
			want = append(want, s.message.Seq)
		}
		h.mu.Unlock()
		if got, _ := c.wait(len(want)); !slices.Equal(got, want) {
			t.Fatalf("in %d pieces: got %v, not %v", pieces, got, want)
		}
		c.Close()
		c.conn.Done()
	}
}

func FuzzResumeAfter(f *testing.F) {
	f.Add("x-1")
	f.Add("-")
	f.Fuzz(func(t *testing.T, id string) {
		epoch, seq, good := parseID(id)
		if good != (len(id) <= maxID && FormatID(epoch, seq) == id) {
			t.Errorf("%q is %q and %d, good %v", id, epoch, seq, good)
		}
	})
}
