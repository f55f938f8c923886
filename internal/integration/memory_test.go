package integration

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"io"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
	"github.com/caddy-broadcast/caddy-broadcast/internal/frame/frametest"
)

// TestUnfinishedMessages: what has come of messages that their clients do not finish counts for max_memory, and goes
// with their connections.
func TestUnfinishedMessages(t *testing.T) {
	s := caddytest.Start(t, `broadcast {
			max_memory 1MiB
		}
		---
		broadcast /ws`)
	frame := make([]byte, 64<<10)
	header := []byte{0x81, 0x80 | 127}
	header = binary.BigEndian.AppendUint64(header, uint64(len(frame)))
	header = append(header, 0, 0, 0, 0)
	for range 40 {
		c, _, _, err := ws.Dial(t.Context(), "ws://"+s.Addr+"/ws")
		if err != nil {
			if strings.Contains(err.Error(), "503") {
				continue // there is no room
			}
			t.Fatal(err)
		}
		defer c.Close()
		c.Write(append(bytes.Clone(header), frame[1:]...)) // all but the last byte
	}
	deadline := time.Now().Add(10 * time.Second)
	for {
		_, body := s.Do("GET", s.Admin+"/metrics", "")
		if v := metric(t, body, "caddy_broadcast_memory_bytes"); v > 1<<20 {
			t.Fatalf("%v bytes", v)
		}
		if metric(t, body, `caddy_broadcast_closed_total{reason="memory"}`) > 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("nobody is closed")
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// metric returns the value of a metric.
func metric(t *testing.T, metrics, name string) float64 {
	t.Helper()
	for line := range strings.Lines(metrics) {
		if rest, ok := strings.CutPrefix(line, name+" "); ok {
			v, err := strconv.ParseFloat(strings.TrimSpace(rest), 64)
			if err != nil {
				t.Fatal(err)
			}
			return v
		}
	}
	t.Fatalf("there is no metric %s", name)
	return 0
}

// TestCloseReasons: a client's own close code does not say why it was closed.
func TestCloseReasons(t *testing.T) {
	s := caddytest.Start(t, `broadcast /ws`)
	codes := []ws.StatusCode{1000, 1002, 1008, 1009, 1012, 1013}
	for _, code := range codes {
		c, _, _, err := ws.Dial(t.Context(), "ws://"+s.Addr+"/ws")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := ws.WriteFrame(c, ws.MaskFrame(ws.NewCloseFrame(ws.NewCloseFrameBody(code, "")))); err != nil {
			t.Fatal(err)
		}
		f, err := frametest.Read(c)
		if err != nil {
			t.Fatal(err)
		}
		if got, _ := ws.ParseCloseFrameData(f.Payload); got != code {
			t.Errorf("%d is answered with %d", code, got)
		}
	}
	s.WaitTotals(func(v caddytest.Totals) bool { return v.Connections == 0 })
	s.ExpectMetrics(`closed_total{reason="client"} 6`)
}

// TestStuckReason: a client that accepts nothing for write_timeout is slow, over TLS too.
func TestStuckReason(t *testing.T) {
	s, port := startSecure(t, "broadcast /other", `broadcast /ws {
			write_timeout 1s
			max_backlog 64MiB
		}`)
	dialer := ws.Dialer{TLSConfig: &tls.Config{InsecureSkipVerify: true}}
	c, _, _, err := dialer.Dial(t.Context(), "wss://localhost:"+port+"/ws")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	data := strings.Repeat("x", 1<<20)
	for range 20 {
		if status, body := s.Post(s.Admin+"/broadcast/publish", "text/plain", data); status != 200 {
			t.Fatal(status, body)
		}
	}
	s.ExpectMetrics(`closed_total{reason="slow"} 1`)
	io.Copy(io.Discard, c)
}
