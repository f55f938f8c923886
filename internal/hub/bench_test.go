package hub

import (
	"bytes"
	"fmt"
	"sync/atomic"
	"testing"
)

// sink is a transport that takes everything.
type sink struct {
	*client
	bytes atomic.Int64
}

func (s *sink) TryWrite(p []byte) (int, error) {
	s.bytes.Add(int64(len(p)))
	return len(p), nil
}

// BenchmarkPublish is what a message costs without its system calls, from Publish to the last of its connections: in
// the engine a delivery is a few nanoseconds and no allocation.
func BenchmarkPublish(b *testing.B) {
	for _, subscribers := range []int{0, 1, 100, 10_000} {
		b.Run(fmt.Sprint("subscribers=", subscribers), func(b *testing.B) {
			h := New(Config{})
			defer closeHub(h)
			var sinks []*sink
			for range subscribers {
				s := &sink{client: newClient()}
				conn, _, err := h.Connect(Subscriber{Channels: []string{"a"}}, options())
				if err != nil {
					b.Fatal(err)
				}
				conn.Start(s, nil)
				sinks = append(sinks, s)
			}
			data := bytes.Repeat([]byte("x"), 128)
			b.ReportAllocs()
			for range b.N {
				if err := h.PublishWait(&Message{Channel: "a", Data: data}); err != nil {
					b.Fatal(err)
				}
			}
			for _, s := range sinks {
				for s.bytes.Load() < 8*int64(b.N) {
				}
			}
			if subscribers > 0 {
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*subscribers), "ns/delivery")
			}
		})
	}
}
