package backend

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"go.uber.org/zap"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/resp"
)

// BenchmarkPublish is the cost of a publication in a pipeline to rooms without subscribers: the server's, the hub's, and the
// system calls.
func BenchmarkPublish(b *testing.B) {
	for _, row := range []struct{ name, channel, payload string }{
		{"plain", "", strings.Repeat("x", 91)},
		{"emit", "socketio", `{"method": "emit", "event": "update", "data": [{"symbol": "ACME", "price": 3}], "binary": false, "namespace": "/", "room": "room:%d", "skip_sid": null, "callback": null, "host_id": "c6757b"}`},
	} {
		for _, pipeline := range []int{1, 10, 100} {
			b.Run(fmt.Sprintf("%s/%d", row.name, pipeline), func(b *testing.B) {
				h := hub.New(hub.Config{})
				defer h.Close(hub.ReasonRestart, "", 0, 0)
				q, err := (&Queue{Publish: []string{"room:*"}}).settings()
				if err != nil {
					b.Fatal(err)
				}
				s := resp.New(resp.Config{Publisher: &taker{New(h), q}, Log: zap.NewNop()})
				l, err := net.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					b.Fatal(err)
				}
				defer l.Close()
				go s.Serve(l)
				var commands bytes.Buffer
				for i := range pipeline {
					channel, payload := row.channel, row.payload
					if channel == "" {
						channel = fmt.Sprint("room:", i)
					} else {
						payload = fmt.Sprintf(payload, i)
					}
					fmt.Fprintf(&commands, "*3\r\n$7\r\nPUBLISH\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n", len(channel), channel, len(payload), payload)
				}
				nc, err := net.Dial("tcp", l.Addr().String())
				if err != nil {
					b.Fatal(err)
				}
				defer nc.Close()
				answers := make([]byte, 4*pipeline)
				b.ReportAllocs()
				for n := 0; n < b.N; n += pipeline {
					nc.Write(commands.Bytes())
					if _, err := io.ReadFull(nc, answers); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
