package protocol_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/caddy-broadcast/caddy-broadcast/internal/eventstream"
	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/protocol/raw"
	v1 "github.com/caddy-broadcast/caddy-broadcast/internal/protocol/v1"
)

// BenchmarkAppend encodes messages of what takes most, at three sizes: the time a byte must not grow with the size.
func BenchmarkAppend(b *testing.B) {
	formats := []struct {
		name   string
		format hub.Format
	}{
		{"raw", raw.Format{}}, {"raw deflated", raw.Format{MinDeflate: 1}}, {"v1", v1.Format{}}, {"v1 deflated", v1.Format{MinDeflate: 1}},
		{"stream", eventstream.Format{}}, {"v1 stream", v1.StreamFormat{}},
	}
	for _, kind := range []struct {
		name string
		kind hub.Kind
		of   func(n int) string
	}{
		{"letters", hub.Text, func(n int) string { return strings.Repeat("x", n) }},
		{"CR", hub.Text, func(n int) string { return strings.Repeat("\r", n) }},
		{"LF", hub.Text, func(n int) string { return strings.Repeat("\n", n) }},
		{"quotes", hub.Text, func(n int) string { return strings.Repeat(`"`, n) }},
		{"control", hub.Text, func(n int) string { return strings.Repeat("\x01", n) }},
		{"JSON of CR", hub.JSON, func(n int) string { return "1" + strings.Repeat("\r", n-1) }},
		{"JSON of CR, then LF", hub.JSON, func(n int) string { return "1" + strings.Repeat("\r", n/2) + strings.Repeat("\n", n/2-1) }},
		{"binary", hub.Binary, func(n int) string { return strings.Repeat("\x00", n) }},
	} {
		for _, f := range formats {
			for _, n := range []int{16 << 10, 256 << 10, 1 << 20} {
				b.Run(fmt.Sprintf("%s/%s/%dKiB", kind.name, f.name, n>>10), func(b *testing.B) {
					data := []byte(kind.of(n))
					var p []byte
					for b.Loop() {
						m := &hub.Message{Channel: "a", Kind: kind.kind, Data: data} // deflated once a message
						p = f.format.Append(p[:0], []*hub.Message{m})
					}
					b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/byte")
					b.ReportMetric(float64(len(p))/float64(n), "bytes/byte")
				})
			}
		}
	}
}
