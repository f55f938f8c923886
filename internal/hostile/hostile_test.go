// Package hostile_test has many misbehaving clients on a real Caddy's sockets, all at once, beside one that behaves.
package hostile_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"runtime/metrics"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	_ "github.com/caddy-broadcast/caddy-broadcast"
	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
)

// TestMain keeps Caddy's files out of the home directory.
func TestMain(m *testing.M) { os.Exit(caddytest.Main(m)) }

const (
	// timeout is how long a server may take for anything at all.
	timeout = 20 * time.Second

	maxMessage = 64 << 10
)

// The hostile are on the channel of the good client, so that it would get what they should not be able to publish; only
// those who may publish before the rate stops them are on another.
const config = `{
	admin ADMIN
	default_bind 127.0.0.1
	persist_config off
	storage file_system DIR
	log {
		output file DIR/log
	}
	servers SLOW {
		timeouts {
			read_header 500ms
		}
	}
}
http://:PORT, http://:SLOWPORT {
	broadcast /ws {
		write_timeout 1s
	}
	broadcast /deflate {
		write_timeout 1s
		compression on
	}
	broadcast /rated rated {
		write_timeout 1s
		rate 100
	}
	broadcast /named {query.channel} {
		user {query.user}
	}
	broadcast /socket.io/* {
		socketio {
			namespaces /chat
		}
		join room:*
		write_timeout 1s
	}
	broadcast /silent {
		ping_interval 1s
		user silent
	}
	respond "the next handler"
}
`

type server struct{ addr, slow, admin, log string }

// start runs Caddy in this process.
func start(t *testing.T) *server {
	t.Helper()
	dir := t.TempDir()
	s := &server{caddytest.FreeAddr(t), caddytest.FreeAddr(t), caddytest.FreeAddr(t), filepath.Join(dir, "log")}
	_, port, _ := net.SplitHostPort(s.addr)
	_, slowPort, _ := net.SplitHostPort(s.slow)
	caddytest.Run(t, strings.NewReplacer("ADMIN", s.admin, "DIR", dir, "SLOWPORT", slowPort, "SLOW", s.slow, "PORT", port).Replace(config))
	return s
}

func (s *server) do(method, path, body string) (string, error) {
	r, err := http.NewRequest(method, "http://"+s.admin+path, strings.NewReader(body))
	if err != nil {
		return "", err
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	p, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != 200 {
		err = fmt.Errorf("%s %s: %s %s", method, path, resp.Status, p)
	}
	return string(p), err
}

// connections returns how many connections there are of a user.
func (s *server) connections(t *testing.T, user string) int {
	t.Helper()
	body, err := s.do("GET", "/broadcast/connections?user="+user, "")
	var list []json.RawMessage
	if err == nil {
		err = json.Unmarshal([]byte(body), &list)
	}
	if err != nil {
		t.Fatal(err, body)
	}
	return len(list)
}

// eventually asks again and again.
func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(timeout); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Errorf("it does not come: %s", what)
			return
		}
	}
}

// others are a publisher and the good client, who go on while there are hostile ones.
type others struct {
	s    *server
	good *websocket.Conn

	published, got int
	peak           uint64 // of the heap
}

func (o *others) publish(t *testing.T, text string) {
	if _, err := o.s.do("POST", "/broadcast/publish", text); err != nil {
		t.Error(err)
	}
}

// startOthers connects the good client.
func startOthers(ctx context.Context, t *testing.T, s *server) *others {
	good, _, err := websocket.Dial(ctx, "ws://"+s.addr+"/ws", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { good.CloseNow() })
	o := &others{s: s, good: good}
	o.publish(t, "first")
	if _, text, err := good.Read(ctx); err != nil || string(text) != "first" {
		t.Fatalf("the good client got %q and %v", text, err)
	}
	return o
}

// publishUntil publishes numbers, and at the end the last message.
func (o *others) publishUntil(t *testing.T, stop <-chan struct{}) {
	defer o.publish(t, "last")
	for tick := time.NewTicker(time.Millisecond); ; o.published++ {
		select {
		case <-tick.C:
			o.publish(t, fmt.Sprint(o.published))
			o.peak = max(o.peak, heapNow())
		case <-stop:
			return
		}
	}
}

// read has the good client get each number, in order, until the last message.
func (o *others) read(ctx context.Context, t *testing.T) {
	for ; ; o.got++ {
		_, text, err := o.good.Read(ctx)
		if string(text) == "last" {
			return
		}
		if err != nil || string(text) != fmt.Sprint(o.got) {
			t.Errorf("the good client got %q and %v, not %d", text, err, o.got)
			return
		}
	}
}

// TestHostile: whatever clients do, it ends as it should, at the latest a write_timeout later, though they do not help;
// and nothing of it is to be noticed by others, or is left.
func TestHostile(t *testing.T) {
	s := start(t)
	s.attack(t, nil, func(play func(string, func(*testing.T))) {
		for _, r := range rows() {
			for way := range ways {
				if way == "whole" || r.send != "" && len(r.send) < 200 {
					play(r.name+"/"+way, func(t *testing.T) { r.run(t, s, way) })
				}
			}
		}
	})
}

// attack runs hostile clients beside good ones: one on a raw WebSocket, and more, which read until the last message. hostile calls
// play for each hostile client. All messages have to reach the raw client, and nothing may be left of the hostile ones.
func (s *server) attack(t *testing.T, more []func(context.Context), hostile func(play func(name string, f func(*testing.T)))) *others {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*timeout)
	defer cancel()
	o := startOthers(ctx, t, s)
	http.DefaultClient.CloseIdleConnections()
	heap, goroutines := heapSize(), runtime.NumGoroutine()

	var good, bad sync.WaitGroup
	stop := make(chan struct{})
	good.Go(func() { o.publishUntil(t, stop) })
	good.Go(func() { o.read(ctx, t) })
	for _, read := range more {
		good.Go(func() { read(ctx) })
	}
	// Not t.Parallel, which runs few at a time, while these mostly wait.
	hostile(func(name string, f func(*testing.T)) { bad.Go(func() { t.Run(name, f) }) })
	bad.Wait()
	close(stop)
	good.Wait()
	if o.got != o.published {
		t.Errorf("the good client got %d messages of %d", o.got, o.published)
	}
	s.expectNothingLeft(t, o, heap, goroutines)
	return o
}

// expectNothingLeft waits until nothing is left of hostile clients. Heap and goroutines are how much there was before them.
func (s *server) expectNothingLeft(t *testing.T, o *others, heap uint64, goroutines int) {
	t.Helper()
	eventually(t, "the good client is alone", func() bool { return s.hasOneClient(t) })
	http.DefaultClient.CloseIdleConnections()
	eventually(t, "the goroutines are gone", func() bool { return runtime.NumGoroutine() <= goroutines+5 })
	if n := heapSize(); n > heap+8<<20 || o.peak > heap+128<<20 {
		t.Errorf("the heap was %d KiB, %d at most, and is %d", heap>>10, o.peak>>10, n>>10)
	}
	t.Logf("%d messages; heap %d KiB, %d at most, then %d; %d goroutines, then %d",
		o.published, heap>>10, o.peak>>10, heapSize()>>10, goroutines, runtime.NumGoroutine())
	s.expectNoPanic(t)
}

// hasOneClient reports whether there is one connection, on one channel, and nothing on its way to it.
func (s *server) hasOneClient(t *testing.T) bool {
	t.Helper()
	body, err := s.do("GET", "/broadcast", "")
	var totals struct{ Connections, Channels, Backlog int }
	if err == nil {
		err = json.Unmarshal([]byte(body), &totals)
	}
	if err != nil {
		t.Fatal(err)
	}
	return totals.Connections == 1 && totals.Channels == 1 && totals.Backlog == 0
}

// expectNoPanic: there is a log, and no panic in it.
func (s *server) expectNoPanic(t *testing.T) {
	t.Helper()
	log, err := os.ReadFile(s.log)
	if err != nil || len(log) == 0 {
		t.Errorf("the log has %d bytes: %v", len(log), err)
	}
	for line := range strings.Lines(string(log)) {
		if strings.Contains(line, "panic") {
			t.Error(line)
		}
	}
}

func heapSize() uint64 {
	runtime.GC()
	runtime.GC() // for what pools held
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// heapNow is what the heap has, with its garbage.
func heapNow() uint64 {
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}
