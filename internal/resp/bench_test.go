package resp

import (
	"bytes"
	"io"
	"net"
	"strings"
	"testing"

	"go.uber.org/zap"
)

// discard is a Publisher that does nothing.
var discard = publishFunc(func(*Conn, []byte, []byte) int { return 0 })

// looped is a connection that has the same commands again and again, and to which answers are written for nothing, so that a
// benchmark has no system calls.
type looped struct {
	net.Conn
	commands []byte
	reads    int
}

func (l *looped) Read(b []byte) (int, error) {
	if l.reads == 0 {
		return 0, io.EOF
	}
	l.reads--
	return copy(b, l.commands), nil
}

func (l *looped) Write(b []byte) (int, error) { return len(b), nil }

func (l *looped) Close() error { return nil }

// BenchmarkPublish is the server's own cost of a publication in a pipeline of 50: parsing, running, and the answer.
func BenchmarkPublish(b *testing.B) {
	for _, row := range []struct {
		name    string
		payload string
	}{{"91 bytes", strings.Repeat("x", 91)}, {"1 KiB", strings.Repeat("x", 1024)}} {
		b.Run(row.name, func(b *testing.B) {
			const pipeline = 50
			l := &looped{commands: bytes.Repeat([]byte(array("PUBLISH", "room:7", row.payload)), pipeline)}
			l.reads = b.N/pipeline + 1
			c := newConn(New(Config{Publisher: discard, Log: zap.NewNop()}), l, 1, true)
			c.in = make([]byte, bigBuffer)
			b.SetBytes(int64(len(l.commands) / pipeline))
			b.ReportAllocs()
			b.ResetTimer()
			c.serve()
		})
	}
}

// BenchmarkHeld is the same with answers that are held back and given at once, as with a broker.
func BenchmarkHeld(b *testing.B) {
	const pipeline = 50
	l := &looped{commands: bytes.Repeat([]byte(array("PUBLISH", "room:7", strings.Repeat("x", 91))), pipeline)}
	l.reads = b.N/pipeline + 1
	c := newConn(New(Config{Log: zap.NewNop(), Publisher: publishFunc(func(c *Conn, _, _ []byte) int {
		c.Hold().Answer(1)
		return 0
	})}), l, 1, true)
	c.in = make([]byte, bigBuffer)
	b.ReportAllocs()
	b.ResetTimer()
	c.serve()
}

// BenchmarkSocket is a publication in a pipeline of 500 with the socket's system calls, the client's included.
func BenchmarkSocket(b *testing.B) {
	_, addr := serve(b, Config{Publisher: discard})
	const pipeline = 500
	commands := bytes.Repeat([]byte(array("PUBLISH", "room:7", strings.Repeat("x", 91))), pipeline)
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		b.Fatal(err)
	}
	defer nc.Close()
	answers := make([]byte, 4*pipeline)
	b.ReportAllocs()
	for n := 0; n < b.N; n += pipeline {
		nc.Write(commands)
		if _, err := io.ReadFull(nc, answers); err != nil {
			b.Fatal(err)
		}
	}
}
