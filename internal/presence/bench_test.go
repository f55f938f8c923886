package presence

import (
	"fmt"
	"runtime"
	"testing"
	"time"
)

// BenchmarkRoom has members join rooms of different sizes, which are told each second as far as the clock of the benchmark goes:
// a join takes 100 µs of it. It reports the time of a join, and the memory of a member.
func BenchmarkRoom(b *testing.B) {
	for _, size := range []int{1, 1000, 100_000} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			names := make([]string, size)
			for i := range names {
				names[i] = fmt.Sprintf("user-%06d", i)
			}
			rooms := max(1, 100_000/size)
			var all []*room
			var before, after runtime.MemStats
			for b.Loop() {
				all = nil
				runtime.GC()
				runtime.ReadMemStats(&before)
				started, now := time.Now(), time.Second
				for range rooms {
					r := newRoom("room")
					for _, user := range names {
						r.join(user, `{"name":"x"}`, 1)
						now += 100 * time.Microsecond
						r.tell(now)
					}
					all = append(all, r)
				}
				b.ReportMetric(float64(time.Since(started).Nanoseconds())/float64(rooms*size), "ns/join")
				runtime.GC()
				runtime.ReadMemStats(&after)
				b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(rooms*size), "B/member")
				runtime.KeepAlive(all)
			}
		})
	}
}
