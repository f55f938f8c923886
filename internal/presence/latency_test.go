package presence_test

import (
	"fmt"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/presence"
	v1 "github.com/caddy-broadcast/caddy-broadcast/internal/protocol/v1"
)

// timed is a subscriber that notes how long each message took that has the time at which it was published.
type timed struct {
	sync.Mutex
	took []time.Duration
}

func (s *timed) TryWrite(p []byte) (int, error) {
	now := time.Now()
	s.Lock()
	defer s.Unlock()
	for rest := p; ; {
		i := slices.Index(rest, '<')
		if i < 0 {
			return len(p), nil
		}
		rest = rest[i+1:]
		if n, err := strconv.ParseInt(string(rest[:slices.Index(rest, '>')]), 10, 64); err == nil {
			s.took = append(s.took, now.Sub(time.Unix(0, n)))
		}
	}
}
func (s *timed) Write(p []byte, _ time.Duration) (int, error) { return s.TryWrite(p) }
func (s *timed) Close()                                       {}

// BenchmarkPublishDuringBurst publishes 1000 messages per second on another channel, while 10,000 clients join a room within two
// seconds, or while nobody does. It reports the time from a publish until the message is written, and until the publisher has its
// answer.
func BenchmarkPublishDuringBurst(b *testing.B) {
	for _, row := range []struct {
		name           string
		joins, members bool
	}{{"nobody joins", false, false}, {"joins without presence", true, false}, {"joins with presence", true, true}} {
		b.Run(row.name, func(b *testing.B) {
			var written, answered []time.Duration
			for b.Loop() {
				w, a := publishDuring(b, row.joins, row.members)
				written, answered = append(written, w...), append(answered, a...)
			}
			report := func(times []time.Duration, what string) {
				slices.Sort(times)
				b.ReportMetric(float64(times[len(times)/2].Nanoseconds())/1000, "µs/"+what+"-p50")
				b.ReportMetric(float64(times[len(times)*99/100].Nanoseconds())/1000, "µs/"+what+"-p99")
			}
			report(written, "written")
			report(answered, "answered")
		})
	}
}

// publishDuring publishes for two seconds, in which clients join.
func publishDuring(b *testing.B, joins, members bool) (written, answered []time.Duration) {
	h := hub.New(hub.Config{})
	var table *presence.Table
	if members {
		table = presence.NewTable(h)
	}
	s := new(timed)
	o := options(nil)
	o.Format = v1.StreamFormat{} // whose bytes are not masked, and begin with no length
	c, _, err := h.Connect(hub.Subscriber{Channels: []string{"other"}}, o)
	if err != nil {
		b.Fatal(err)
	}
	c.Start(s, nil)
	var wait sync.WaitGroup
	began := time.Now()
	if joins {
		o := options(table)
		wait.Go(func() {
			for i := range 10_000 {
				join(b, h, o, fmt.Sprint("user", i))
				if i%10 == 9 {
					time.Sleep(time.Until(began.Add(time.Duration(i) * 200 * time.Microsecond)))
				}
			}
		})
	}
	for i := range 2000 {
		time.Sleep(time.Until(began.Add(time.Duration(i) * time.Millisecond)))
		now := time.Now()
		if err := h.Publish(&hub.Message{Channel: "other", Data: fmt.Appendf(nil, "<%d>", now.UnixNano())}); err != nil {
			b.Fatal(err)
		}
		answered = append(answered, time.Since(now))
	}
	wait.Wait()
	c.Settle()
	h.Close(hub.ReasonRestart, "", 0, 5*time.Second)
	s.Lock()
	defer s.Unlock()
	return s.took, answered
}
