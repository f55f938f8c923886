package hub

import (
	"fmt"
	"runtime"
	"slices"
	"testing"
	"time"
)

// The benchmarks in this file measure how long a publish on one channel waits for the hub's lock while something else
// is done that concerns many channels, messages or connections. They report the worst delay of a publish and the 99th
// percentile. "nothing" is what the machine itself contributes. -benchtime 1x is enough.

var manyChannels = []int{10_000, 100_000, 1_000_000}

// null is a transport that accepts everything and keeps nothing.
type null struct{}

func (null) TryWrite(p []byte) (int, error)               { return len(p), nil }
func (null) Write(p []byte, _ time.Duration) (int, error) { return len(p), nil }
func (null) Close()                                       {}

// delays publishes on a channel of its own, again and again, while f runs: b.N times, and longer if that was short.
func delays(b *testing.B, h *Hub, f func()) {
	b.Helper()
	const enough = 200 // publishes, so that there is a 99th percentile
	var took []time.Duration
	published := make(chan struct{}, 1<<20)
	stop, stopped := make(chan struct{}), make(chan struct{})
	runtime.GC()
	go func() {
		defer close(stopped)
		data := make([]byte, 128)
		for {
			select {
			case <-stop:
				return
			default:
			}
			begin := time.Now()
			if err := h.Publish(&Message{Channel: "other", Data: data}); err != nil {
				b.Error(err)
			}
			took = append(took, time.Since(begin))
			select {
			case published <- struct{}{}:
			default:
			}
			time.Sleep(20 * time.Microsecond)
		}
	}()
	<-published
	b.ResetTimer()
	for range b.N {
		f()
	}
	b.StopTimer()
	for begin := time.Now(); len(published) < enough && time.Since(begin) < 3*time.Second; {
		f()
		runtime.Gosched()
	}
	close(stop)
	<-stopped
	slices.Sort(took)
	b.ReportMetric(took[len(took)-1].Seconds()*1000, "max-ms")
	b.ReportMetric(took[len(took)*99/100].Seconds()*1000, "p99-ms")
}

// fill gives the hub n channels with a message each in the history, and every tenth a second one.
func fill(b *testing.B, h *Hub, n int) {
	b.Helper()
	data := make([]byte, 16)
	for i := range n + n/10 {
		if err := h.Publish(&Message{Channel: fmt.Sprint("room:", i%n), Data: data}); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkLockChannels is about what concerns all channels: the list of them, page by page, and a reload.
func BenchmarkLockChannels(b *testing.B) {
	for _, n := range manyChannels {
		o := Config{History: 10, HistoryBytes: 1 << 40}
		h := New(o)
		fill(b, h, n)
		run := func(name string, f func()) {
			b.Run(fmt.Sprintf("%s/channels=%d", name, n), func(b *testing.B) { delays(b, h, f) })
		}
		run("nothing", func() { time.Sleep(time.Millisecond) })
		after := ""
		run("page", func() {
			list := h.Channels("", after, 1000)
			if len(list) < 1000 {
				after = ""
				return
			}
			after = list[len(list)-1].Name
		})
		run("large page", func() { h.Channels("", "", 100_000) })
		run("reload", func() { h.Configure(o) })
		o.History = 1
		run("shorter history", func() { h.Configure(o) })
		o.HistoryAge = time.Nanosecond
		run("all too old", func() { h.Configure(o) })
		o.HistoryAge = 0
		h.Configure(o)
		fill(b, h, n)
		o.History = 0
		run("history off", func() { h.Configure(o) })
		closeHub(h)
	}
}

// BenchmarkLockResume is a resume on 1,000 channels that has missed more than fits in its backlog, and one that
// replays the last messages, where there are so many messages and channels.
func BenchmarkLockResume(b *testing.B) {
	for _, n := range manyChannels {
		h := New(Config{History: 1000, HistoryBytes: 1 << 40})
		names := channelNames("own", MaxJoined)
		id := FormatID(h.epoch, 0)
		data := make([]byte, 16)
		for i := range n {
			if err := h.Publish(&Message{Channel: names[i%len(names)], Data: data}); err != nil {
				b.Fatal(err)
			}
		}
		o := options()
		o.MaxBacklog = 1 << 20
		resume := func(s Subscriber) func() {
			return func() {
				c, _, err := h.Connect(s, o)
				if err != nil {
					b.Fatal(err)
				}
				c.Start(null{}, nil)
				c.Done()
			}
		}
		run := func(name string, s Subscriber) {
			b.Run(fmt.Sprintf("%s/messages=%d", name, n), func(b *testing.B) { delays(b, h, resume(s)) })
		}
		run("too much", Subscriber{Channels: names, LastID: id})
		run("replay", Subscriber{Channels: names, Replay: 1000})
		closeHub(h)
	}
}

// BenchmarkLockMembership is what a connection on 1,000 channels does beside so many other channels.
func BenchmarkLockMembership(b *testing.B) {
	for _, n := range manyChannels {
		h := New(Config{})
		other := channelNames("other", 1000)
		h.mu.Lock()
		for i := range n {
			h.openChannelLocked(fmt.Sprint("room:", i))
		}
		h.mu.Unlock()
		names := channelNames("own", MaxJoined)
		connect := func(channels []string) *Conn {
			c, _, err := h.Connect(Subscriber{Channels: channels}, options())
			if err != nil {
				b.Fatal(err)
			}
			c.Start(null{}, nil)
			return c
		}
		run := func(name string, f func()) {
			b.Run(fmt.Sprintf("%s/channels=%d", name, n), func(b *testing.B) { delays(b, h, f) })
		}
		nothing := func(Welcome, []*Message) []byte { return nil }
		run("connect and close", func() { connect(names).Done() })
		c := connect(names[:MaxJoined-1])
		run("join and leave", func() {
			for _, name := range other[:100] {
				if err := c.Join(name, "", nothing); err != nil {
					b.Fatal(err)
				}
				if err := c.Leave(name, nil); err != nil {
					b.Fatal(err)
				}
			}
			h.onLoop(c.loop, func(*loop) {})
		})
		run("on", func() {
			for range 100 {
				c.On(names[MaxJoined-2])
			}
		})
		c.Done()
		closeHub(h)
	}
}

// BenchmarkMembership is what comes and goes costs in all, on its loop too, for connections on so many channels.
func BenchmarkMembership(b *testing.B) {
	for _, k := range []int{1, 2, 10, 100, MaxJoined - 1} {
		b.Run(fmt.Sprintf("128 joins and leaves/on=%d", k), func(b *testing.B) {
			h := New(Config{})
			defer closeHub(h)
			c, _, err := h.Connect(Subscriber{Channels: channelNames("own", k)}, options())
			if err != nil {
				b.Fatal(err)
			}
			c.Start(null{}, nil)
			nothing := func(Welcome, []*Message) []byte { return nil }
			b.ResetTimer()
			for range b.N {
				for range 128 {
					if err := c.Join("one more", "", nothing); err != nil {
						b.Fatal(err)
					}
					if err := c.Leave("one more", nil); err != nil {
						b.Fatal(err)
					}
				}
				h.onLoop(c.loop, func(*loop) {})
			}
		})
	}
}

// BenchmarkDeliverMixed is a message to 1,000 connections that are on so many channels.
func BenchmarkDeliverMixed(b *testing.B) {
	for _, k := range []int{1, 2, 10, MaxJoined - 1} {
		b.Run(fmt.Sprintf("on=%d", k), func(b *testing.B) {
			h := New(Config{})
			names := channelNames("own", k)
			for range 1000 {
				c, _, err := h.Connect(Subscriber{Channels: names}, options())
				if err != nil {
					b.Fatal(err)
				}
				c.Start(null{}, nil)
			}
			h.onLoops(func(*loop) {})
			b.ResetTimer()
			for range b.N {
				if err := h.PublishWait(&Message{Channel: names[0], Data: []byte("x")}); err != nil {
					b.Fatal(err)
				}
				h.onLoops(func(*loop) {})
			}
			b.StopTimer()
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*1000), "ns/delivery")
			begin := time.Now()
			closeHub(h)
			b.ReportMetric(time.Since(begin).Seconds()*1000, "close-ms")
		})
	}
}

// BenchmarkChurn is connect, subscribe and disconnect, beside so many channels, on a channel that is new each time or
// one of a thousand.
func BenchmarkChurn(b *testing.B) {
	for _, n := range []int{0, 1_000_000} {
		b.Run(fmt.Sprintf("channels=%d", n), func(b *testing.B) {
			h := New(Config{})
			defer closeHub(h)
			h.mu.Lock()
			for i := range n {
				h.openChannelLocked(fmt.Sprint("room:", i))
			}
			h.mu.Unlock()
			o := options()
			var names []string // all over the order
			for i := range 1000 {
				names = append(names, fmt.Sprintf("room:%d:", i*7919%1000*1000))
			}
			runtime.GC()
			b.ReportAllocs()
			b.ResetTimer()
			for i := range b.N {
				c, _, err := h.Connect(Subscriber{Channels: []string{names[i%1000]}}, o)
				if err != nil {
					b.Fatal(err)
				}
				c.Start(null{}, nil)
				c.Done()
			}
			b.StopTimer()
			h.onLoops(func(*loop) {})
		})
	}
}

func channelNames(prefix string, n int) (names []string) {
	for i := range n {
		names = append(names, fmt.Sprintf("%s:%d:", prefix, i*7919%n))
	}
	return names
}
