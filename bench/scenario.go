//go:build linux

package main

import (
	"fmt"
	"slices"
	"time"
)

// scenario is a load, and what is measured under it.
type scenario struct {
	name        string
	about       string
	subscribers int
	stopped     int // how many of the subscribers do not read
	load        load
	tls         bool
	polling     bool // by long polling
	idle        bool // only memory
	skip        func(peer) bool
}

// rooms returns how many channels there are: one, if the scenario does not say.
func (s scenario) rooms() int { return max(1, s.load.rooms) }

// applies returns whether the scenario is measured with a peer.
func (s scenario) applies(p peer) bool {
	return (s.skip == nil || !s.skip(p)) && (p.only == nil || slices.Contains(p.only, s.name))
}

// The sizes are those that show one thing each: paced, the cost of a message that comes alone; burst, what batches save;
// wide, one system call for each of many; rooms, the cost of messages with few subscribers; large, copying.
var scenarios = []scenario{
	{
		// 20 messages/s leave the server idle most of the time. So each message pays for waking it, and nothing can be
		// batched.
		name: "paced", about: "1,000 subscribers, 20 messages/s of 128 B",
		subscribers: 1000, load: load{size: 128, rate: 20, posters: 1},
	},
	{
		// 64 in flight keep it always busy. Messages that are ready together can share a write, which is the only way to be
		// cheaper than the floor.
		name: "burst", about: "1,000 subscribers, 64 messages of 128 B in flight",
		subscribers: 1000, load: load{size: 128, window: 64, posters: 64},
	},
	{
		// Fifteen times as many as in paced, so that what a server does once for each message matters little. One at a time,
		// so that p99 is nearly the time until the last subscriber has a message.
		name: "wide", about: "15,000 subscribers, one message of 128 B at a time",
		subscribers: 15_000, load: load{size: 128, window: 1, posters: 1},
	},
	{
		// Ten subscribers a message, so that the POST is about half of the cost. That is why the figure to read is the one
		// per message.
		name: "rooms", about: "5,000 subscribers in 500 channels, 1,000 messages/s of 128 B",
		subscribers: 5000, load: load{size: 128, rate: 1000, posters: 8, rooms: 500},
		skip: func(p peer) bool { return !p.rooms },
	},
	{
		// As a script publishes that runs curl, or a program without a pool of connections. The difference to rooms is what
		// accepting a connection costs.
		name: "rooms-connect", about: "the same as rooms, with a new connection for each POST",
		subscribers: 5000, load: load{size: 128, rate: 1000, posters: 8, rooms: 500, connect: true},
		skip: func(p peer) bool { return !p.rooms || p.only != nil },
	},
	{
		// Four in flight keep it busy. More would only wait in socket buffers.
		name: "large", about: "200 subscribers, 64 KiB messages, four in flight",
		subscribers: 200, load: load{size: 64 << 10, window: 4, posters: 4},
	},
	{
		name: "tls", about: "the same as paced, over TLS",
		subscribers: 1000, load: load{size: 128, rate: 20, posters: 1}, tls: true,
		skip: func(p peer) bool { return !p.tls },
	},
	{
		name: "tls-burst", about: "the same as burst, over TLS",
		subscribers: 1000, load: load{size: 128, window: 64, posters: 64}, tls: true,
		skip: func(p peer) bool { return !p.tls },
	},
	{
		// A delivery is a request, so there are fewer than in paced: more would keep slow peers always busy, who then put
		// several messages in an answer.
		name: "polling", about: "200 clients of Socket.IO that poll, 5 messages/s of 128 B",
		subscribers: 200, load: load{size: 128, rate: 5, posters: 1}, polling: true,
		skip: func(p peer) bool { return !p.polling },
	},
	{
		name: "polling-burst", about: "1,000 clients of Socket.IO that poll, 64 messages of 128 B in flight",
		subscribers: 1000, load: load{size: 128, window: 64, posters: 64}, polling: true,
		skip: func(p peer) bool { return !p.polling },
	},
	{
		// The publishers are also subscribers, as in a chat. It is the only scenario whose messages are not HTTP requests.
		name: "sockets", about: "1,000 connections, 50 of them sending 128 B, 50 messages in flight",
		subscribers: 1000, load: load{size: 128, window: 50, sockets: 50},
		skip: func(p peer) bool { return !p.sockets },
	},
	{
		// Large messages, so that the buffers of those who do not read in mixed are full after a moment.
		name: "alone", about: "1,000 subscribers, 20 messages/s of 16 KiB: the reference for mixed",
		subscribers: 1000, load: load{size: 16 << 10, rate: 20, posters: 1},
	},
	{
		// 50 are enough to hold up a server that writes to them in turn. The goal compares the p99 of the others with that of
		// alone.
		name: "mixed", about: "the same as alone, plus 50 subscribers that have stopped reading",
		subscribers: 1050, stopped: 50, load: load{size: 16 << 10, rate: 20, posters: 1},
		skip: func(p peer) bool { return p.name == "floor" }, // the floor retries each write until the socket accepts it, so it would wait for them
	},
	{
		// The floor is left out: it keeps nothing but a descriptor of each connection, so its memory says nothing.
		name: "idle", about: "memory of 10,000 idle connections",
		subscribers: 10_000, idle: true, load: load{size: 128},
		skip: func(p peer) bool { return p.name == "floor" },
	},
	{
		name: "idle-polling", about: "memory of 10,000 idle clients of Socket.IO that poll",
		subscribers: 10_000, idle: true, polling: true, load: load{size: 128},
		skip: func(p peer) bool { return !p.polling },
	},
	{
		name: "idle-tls", about: "memory of 10,000 idle connections over TLS",
		subscribers: 10_000, idle: true, tls: true, load: load{size: 128},
		skip: func(p peer) bool { return !p.tls },
	},
	{name: clusterName}, // see benchCluster
	{name: herdName},    // see benchHerd
	{name: stormName},   // see benchStorm
}

// result is what was measured. A zero means that it was not. All of it depends on what else the machine does, p99 most of
// all, so only figures of the same run may be compared.
type result struct {
	messages   int64
	deliveries int64
	perSecond  float64
	// User and system time, so the kernel's work in write(2) is in it. It is most of the figure, as the floor shows.
	cpu        time.Duration // the server's, per delivery
	cpuMessage time.Duration // per message
	// From the moment before the request is written to the one at which the generator has read it, so it contains the
	// generator's own delay.
	p50, p99 time.Duration
	first    time.Duration // to connect
	tenth    time.Duration // to connect on a connection that has others or, over HTTP/1.1, with a TLS session ticket
	// Only the resident memory of the process. The kernel's socket buffers are not in it, and are alike for all.
	memory  float64 // KiB per connection
	missing int64
	extra   int64 // repeated, or from another room
	closed  int64 // connections that the server ended
}

// measure runs a scenario on a fresh server, because memory that one scenario has used would hide what the next one takes.
func (sc scenario) measure(p peer, dir string, port int, seconds float64) (r result, err error) {
	s, err := p.start(dir, port)
	if err != nil {
		return r, err
	}
	defer s.stop()
	t := s.target
	if sc.tls {
		t.addr, t.tls = s.tlsAddr, true
	}
	if sc.polling {
		t.path, t.polls = pollingPath, true
	}
	warm(t)
	// Only idle waits for a garbage collection, which takes seconds. In the other scenarios KiB per connection contains
	// garbage. Only a Caddy can be asked for a collection, so other peers' figures contain some in idle too.
	rest := func() {
		if s.settle != nil && sc.idle {
			s.settle()
		} else {
			time.Sleep(300 * time.Millisecond)
		}
	}
	rest()
	// Memory is the growth from here on, so a peer's own size, which differs by tens of megabytes, does not count.
	before := s.usage()
	f, err := dialAll(t, sc.subscribers, sc.rooms(), sc.stopped)
	if err != nil {
		return r, err
	}
	defer f.close()
	rest()
	if len(f.first) > 0 && len(f.tenth) > 0 {
		slices.Sort(f.first)
		slices.Sort(f.tenth)
		r.first, r.tenth = f.first[len(f.first)/2], f.tenth[len(f.tenth)/2]
	}
	// CPU time counts from here on: connecting does not count, since it is paid once and deliveries all the time.
	at := s.usage()
	r.memory = float64(at.rss-before.rss) / 1024 / float64(sc.subscribers)
	if sc.idle {
		return r, nil
	}
	err = sc.measureLoad(&r, s, f, at.cpu, seconds)
	return r, err
}

// measureLoad publishes to the readers, and measures the deliveries. The server has used this much CPU time before.
func (sc scenario) measureLoad(r *result, s *server, f *fleet, cpu time.Duration, seconds float64) error {
	l := sc.load
	l.rooms = sc.rooms()
	begin := time.Now()
	expected, messages, err := f.drive(s, l, time.Duration(seconds*float64(time.Second)))
	if err != nil {
		return fmt.Errorf("%w; the server's output: %.300s", err, s.out)
	}
	want := int64(0)
	for _, reader := range f.readers {
		if !reader.stopped {
			want += int64(expected[reader.room].count)
		}
	}
	// A delivery that has not arrived after 5 s without any is missing.
	f.wait(want, 5*time.Second)
	// Rates are of the time to the last delivery, so that a server that falls behind does not look fast.
	took := time.Since(begin)
	time.Sleep(50 * time.Millisecond) // time for extra deliveries to arrive
	used := s.usage().cpu - cpu
	r.missing, r.extra = f.compare(expected)
	r.messages = messages
	r.deliveries = f.delivered.Load()
	r.closed = f.closed.Load()
	r.perSecond = float64(r.deliveries) / took.Seconds()
	r.cpu = used / time.Duration(max(1, r.deliveries))
	r.cpuMessage = used / time.Duration(max(1, messages))
	f.latency.mu.Lock()
	defer f.latency.mu.Unlock()
	r.p50, r.p99 = f.latency.quantile(0.5), f.latency.quantile(0.99)
	return nil
}

// warm makes a server do everything once before the measurement, such as load a certificate. It retries, because a server
// accepts connections before it can serve them: Caddy's own certificate takes a moment. Fifty tries are 5 s.
func warm(t target) {
	for range 50 {
		if f, err := dialAll(t, 1, 1, 0); err == nil {
			f.close()
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// compare counts the deliveries that the readers lack, and those that are extra. A sum per reader shows whether they were the
// right ones. It does not take a list of them, which would grow with every delivery. A wrong sum counts as one missing and
// one extra, which is the least that it can be.
func (f *fleet) compare(expected []tally) (missing, extra int64) {
	f.latency.mu.Lock()
	defer f.latency.mu.Unlock()
	for _, r := range f.readers {
		want := expected[r.room]
		switch {
		// How much they took before they were full depends on the kernel.
		case r.stopped:
		case r.count < want.count:
			missing += int64(want.count - r.count)
		case r.count > want.count:
			extra += int64(r.count - want.count)
		case r.sum != want.sum: // the right number, but wrong ones: at least one is missing and one is extra
			missing++
			extra++
		}
	}
	return missing, extra
}
