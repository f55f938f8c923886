package eventstream_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/caddy-broadcast/caddy-broadcast/internal/frame/frametest"
	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
)

// device is a client that comes back whenever it is cut off, and resumes where it was.
type device struct {
	channels, pos string
	reached       atomic.Uint64 // the position, for the publisher
	moved         chan struct{} // shared: has a value when a device has got on
	got           []string      // data of messages
	last          string        // the ID of the last of them
	gaps          int
}

func (d *device) at(id string) {
	d.pos = id
	d.reach(seq(id))
}

// reach tells the publisher how far the device is.
func (d *device) reach(seq uint64) {
	d.reached.Store(seq)
	select {
	case d.moved <- struct{}{}:
	default: // the publisher will look anyway
	}
}

// some returns after how many bytes a visit ends: few, but sometimes as many as a batch may have.
func some(r *rand.Rand) int64 {
	if r.IntN(8) == 0 {
		return r.Int64N(40_000)
	}
	return r.Int64N(3000)
}

// visitStream opens an event stream and cuts it off after some bytes.
func (d *device) visitStream(t *testing.T, s *site, r *rand.Rand) {
	header := accept
	if d.pos != "" {
		header += "Last-Event-ID: " + d.pos + "\r\n"
	}
	c, in := s.request(t, d.channels, header)
	defer c.Close()
	head, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Error(err)
		return
	}
	in = bufio.NewReader(io.LimitReader(head.Body, some(r)))
	for {
		e, err := next(in)
		if err != nil {
			return
		}
		if e.id != "" {
			d.at(e.id)
		}
		if e.kind == "gap" {
			d.gaps++
		} else if e.data != "" {
			d.got = append(d.got, strings.TrimSuffix(e.data, "\n"))
		}
	}
}

// visitSocket does the same with broadcast.v1.
func (d *device) visitSocket(t *testing.T, s *site, r *rand.Rand) {
	c, in := s.request(t, d.channels+"&last_id="+d.pos, "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"+
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: other, broadcast.v1\r\n")
	defer c.Close()
	head, err := http.ReadResponse(in, nil)
	if err != nil || head.StatusCode != 101 || head.Header.Get("Sec-Websocket-Protocol") != "broadcast.v1" {
		t.Error(head, err)
		return
	}
	limited := io.LimitReader(in, some(r))
	for {
		frame, err := frametest.Read(limited)
		if err != nil {
			return
		}
		var objects []struct {
			ID    string
			Data  string
			Hello struct{ ID string }
			Gap   json.RawMessage
		}
		if err := json.Unmarshal(frame.Payload, &objects); err != nil {
			t.Errorf("%q: %v", frame.Payload, err)
			return
		}
		for _, o := range objects {
			switch {
			case o.Hello.ID != "":
				d.at(o.Hello.ID)
			case o.Gap != nil:
				d.gaps++
			default:
				d.at(o.ID)
				d.got = append(d.got, o.Data)
			}
		}
	}
}

func seq(id string) uint64 {
	n, _ := strconv.ParseUint(id[strings.LastIndexByte(id, '-')+1:], 10, 64)
	return n
}

// TestResume: clients of both transports that are cut off at any byte and resume, ten thousand times, get every message
// once and in order.
func TestResume(t *testing.T) {
	s := serve(t, hub.Config{History: 1 << 20, HistoryBytes: 1 << 30}, nil, nil).start()
	rounds := 2500
	if testing.Short() {
		rounds = 100
	}
	seed := rand.Uint64()
	t.Log("seed", seed)
	p := &pursued{t: t, site: s, moved: make(chan struct{}, 1)}
	for _, channels := range []string{"a", "a,b", "c", "c,b,a"} {
		p.devices = append(p.devices, &device{channels: channels, moved: p.moved})
	}
	stop := make(chan struct{})
	var publisher, clients sync.WaitGroup
	publisher.Go(func() { p.publish(rand.New(rand.NewPCG(seed, 0)), stop) })
	for i, d := range p.devices {
		visit := d.visitStream
		if i >= 2 {
			visit = d.visitSocket
		}
		clients.Go(func() {
			r := rand.New(rand.NewPCG(seed, uint64(i)+1))
			for d.pos == "" {
				if d.visitStream(t, s, r); t.Failed() {
					return
				}
			}
			d.got, d.last = nil, d.pos // from here on
			for range rounds {
				visit(t, s, r)
			}
			d.reach(math.MaxUint64 - window) // it waits for nothing more
		})
	}
	clients.Wait()
	close(stop)
	publisher.Wait()
	for _, d := range p.devices {
		d.check(t, p.log)
	}
}

// check compares what a device got with what was published.
func (d *device) check(t *testing.T, log []*hub.Message) {
	var want []string
	for _, m := range log {
		if m.Seq > seq(d.last) && m.Seq <= seq(d.pos) && slices.Contains(strings.Split(d.channels, ","), m.Channel) {
			want = append(want, string(m.Data))
		}
	}
	if !slices.Equal(d.got, want) || d.gaps > 0 || len(want) == 0 {
		t.Errorf("on %s: %d messages, not %d, %d gaps", d.channels, len(d.got), len(want), d.gaps)
	}
}

// pursued is a publisher that waits for the slowest of its devices, because one that is far behind would get a gap.
type pursued struct {
	t       *testing.T
	site    *site
	devices []*device
	moved   chan struct{}
	log     []*hub.Message // what was published
}

// window is how many messages the publisher is ahead of the slowest device at most. They have to fit in a backlog of
// 1 MiB, or there would be gaps. It is small, so that visits end in live delivery too, and not in the replay alone.
const window = 100

func (p *pursued) publish(r *rand.Rand, stop <-chan struct{}) {
	for i := 0; ; i++ {
		for slices.ContainsFunc(p.devices, func(d *device) bool { return uint64(len(p.log)) > d.reached.Load()+window }) {
			<-p.moved // not spinning: that took half of the test's time
		}
		select {
		case <-stop:
			return
		default:
		}
		var ms []*hub.Message
		for range 1 + r.IntN(5) {
			ms = append(ms, &hub.Message{Channel: []string{"a", "b", "c"}[r.IntN(3)], Data: []byte(fmt.Sprint(i, " ", strings.Repeat("x", r.IntN(100))))})
		}
		if err := p.site.hub.Publish(ms...); err != nil {
			p.t.Error(err)
			return
		}
		p.log = append(p.log, ms...)
	}
}
