package socketio_test

import (
	"testing"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/socketio"
)

// BenchmarkAppend is what a publish costs on each loop, however many clients get it.
func BenchmarkAppend(b *testing.B) {
	m := &hub.Message{Channel: "default", Event: "update", Data: []byte(`{"price":3,"name":"a product of some length","list":[1,2,3,4,5,6,7,8,9,10,11,12]}`), Kind: hub.JSON}
	hub.New(hub.Config{}).Publish(m)
	for _, f := range []socketio.Format{{}, {Offsets: true}} {
		name := "plain"
		if f.Offsets {
			name = "offsets"
		}
		b.Run(name, func(b *testing.B) {
			run := []*hub.Message{m}
			var p []byte
			b.ReportAllocs()
			for b.Loop() {
				p = f.Append(p[:0], run)
			}
		})
	}
}
