package integration

import (
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
)

// BenchmarkPost publishes through a whole Caddy on one connection that is kept. With -memprofilerate 1 its memory profile has
// each allocation, also those of Caddy and net/http (docs/performance.md, "Publishing by POST").
func BenchmarkPost(b *testing.B) {
	s := caddytest.Start(b, "broadcast /ws/* {path.1} {\n join *\n }")
	c, err := net.Dial("tcp", s.Addr)
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	request := fmt.Appendf(nil, "POST /ws/7 HTTP/1.1\r\nHost: %s\r\nContent-Type: text/plain\r\nContent-Length: 128\r\n\r\n%s", s.Addr, strings.Repeat("x", 128))
	buf := make([]byte, 4096)
	post := func() {
		if _, err := c.Write(request); err != nil {
			b.Fatal(err)
		}
		n, err := c.Read(buf)
		if err != nil || string(buf[:12]) != "HTTP/1.1 200" {
			b.Fatal(string(buf[:n]), err)
		}
	}
	for range 100 {
		post()
	}
	b.ReportAllocs()
	for b.Loop() {
		post()
	}
}
