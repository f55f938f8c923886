//go:build linux

package main

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gobwas/ws"
)

// TestScan: markers are found however the bytes are split, and whatever is between them.
func TestScan(t *testing.T) {
	var stream []byte
	var want tally
	for i := range uint32(300) {
		stream = append(stream, "@@ @@@"[:rand.IntN(7)]...)
		stream = append(stream, payload(rand.IntN(60), i)...)
		want.add(i)
	}
	for range 200 {
		var r reader
		var h histogram
		n := 0
		for rest := stream; len(rest) > 0; {
			k := min(len(rest), 1+rand.IntN(1+rand.IntN(100)))
			n += r.scan(rest[:k], time.Now().UnixNano(), &h)
			rest = rest[k:]
		}
		if r.tally != want || n != 300 || h.n != 300 {
			t.Fatalf("found %d, %+v, not %+v", n, r.tally, want)
		}
	}
}

func TestHistogram(t *testing.T) {
	var h histogram
	for i := range 1000 {
		h.add(int64(i+1) * 1000)
	}
	for _, q := range []float64{0.01, 0.5, 0.99} {
		got, want := float64(h.quantile(q)), q*1e6
		if got < want*0.96 || got > want*1.04 {
			t.Errorf("quantile %v is %v, not %v", q, got, want)
		}
	}
}

// fake is a server with known faults: it drops, repeats or swaps some deliveries.
func fake(t *testing.T, fault string) (s *server, ready func()) {
	var mu sync.Mutex
	up := make(chan bool, 100)
	var conns []net.Conn
	published := 0
	mux := http.NewServeMux()
	mux.HandleFunc("GET /", func(w http.ResponseWriter, r *http.Request) {
		c, _, _, err := ws.UpgradeHTTP(r, w)
		if err == nil {
			mu.Lock()
			conns = append(conns, c)
			mu.Unlock()
			up <- true
		}
	})
	var last []byte
	mux.HandleFunc("POST /", func(w http.ResponseWriter, r *http.Request) {
		data := make([]byte, r.ContentLength)
		r.Body.Read(data)
		mu.Lock()
		defer mu.Unlock()
		published++
		for i, c := range conns {
			times, send := 1, data
			if i == 3 && published == 5 {
				switch fault {
				case "drops":
					times = 0
				case "repeats":
					times = 2
				case "confuses":
					send = last
				case "cuts off":
					c.Close()
				}
			}
			for range times {
				ws.WriteFrame(c, ws.NewTextFrame(send))
			}
		}
		last = data
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h := &http.Server{Handler: mux}
	go h.Serve(l)
	t.Cleanup(func() {
		h.Close()
		for _, c := range conns {
			c.Close()
		}
	})
	s = &server{target: target{addr: l.Addr().String(), path: same("/")}, publish: same("/"), wrap: plain}
	return s, func() {
		for range 10 {
			<-up
		}
	}
}

// TestFaults: a server that drops, repeats or swaps messages, or disconnects a client, is reported.
func TestFaults(t *testing.T) {
	for fault, want := range map[string]string{
		"":         "missing 0 extra 0 closed 0",
		"drops":    "missing 1 extra 0 closed 0",
		"repeats":  "missing 0 extra 1 closed 0",
		"confuses": "missing 1 extra 1 closed 0",
		"cuts off": "missing some extra 0 closed 1",
	} {
		s, ready := fake(t, fault)
		f, err := dialAll(s.target, 10, 1, 0)
		if err != nil {
			t.Fatal(err)
		}
		ready()
		expected, messages, err := f.drive(s, load{size: 64, rooms: 1, rate: 100, posters: 1}, 150*time.Millisecond)
		if err != nil || messages < 6 {
			t.Fatalf("%d messages, %v", messages, err)
		}
		f.wait(10*messages+1, 200*time.Millisecond)
		missing, extra := f.compare(expected)
		count := fmt.Sprint(missing)
		if fault == "cuts off" && missing >= messages-4 {
			count = "some" // from the fifth on, or from the fourth, which the kernel may discard with the connection
		}
		if got := fmt.Sprintf("missing %s extra %d closed %d", count, extra, f.closed.Load()); got != want {
			t.Errorf("a server that %s: %s, not %s", fault, got, want)
		}
		f.close()
	}
}

func TestReport(t *testing.T) {
	two, err := pick(peers, ours+",floor", func(p peer) string { return p.name })
	if err != nil {
		t.Fatal(err)
	}
	tb := newTable(two)
	tb.set("paced", ours, result{cpu: 1100, deliveries: 1})
	tb.set("paced", "floor", result{cpu: 1000, deliveries: 1})
	tb.set("idle", ours, result{memory: 5})
	if s := tb.ratios(); !strings.Contains(s, "1.10, at most 1.15") {
		t.Error(s)
	}
	if s := tb.figures(1, 1); !strings.Contains(s, "**missed by 11 %**") || !strings.Contains(s, "| floor | 0 | 1.00 µs |") {
		t.Error(s)
	}
	if s := tb.plot(); !strings.HasPrefix(s, "<svg") || strings.Count(s, `class="ours"`) < 2 || strings.Contains(s, "NaN") {
		t.Error(s)
	}
}
