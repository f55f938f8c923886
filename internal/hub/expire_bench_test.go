package hub

import (
	"fmt"
	"testing"
	"time"
)

// BenchmarkExpiries is what access that ends costs a loop: for each connection that comes and goes, and for a tick at which none ends.
func BenchmarkExpiries(b *testing.B) {
	for _, n := range []int{1, 1000, 100_000} {
		var x expiries
		now := time.Now()
		for i := range n {
			x.add(new(Conn), now.Add(time.Duration(i%3600+1)*time.Second))
		}
		b.Run(fmt.Sprint("come and go/", n), func(b *testing.B) {
			b.ReportAllocs()
			c := new(Conn)
			for i := range b.N {
				x.add(c, now.Add(time.Duration(i%3600)*time.Second))
				x.remove(c)
			}
		})
		b.Run(fmt.Sprint("tick/", n), func(b *testing.B) {
			for range b.N {
				if x.next(now) != nil {
					b.Fatal("one has expired")
				}
			}
		})
	}
}
