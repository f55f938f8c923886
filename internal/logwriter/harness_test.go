package logwriter

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// format has each message on a line.
type format struct{}

func (format) Append(dst []byte, run []*hub.Message) []byte {
	for _, m := range run {
		kind := byte('j')
		if m.Kind == hub.Text {
			kind = 't'
		}
		dst = append(append(append(dst, kind), m.Data...), '\n')
	}
	return dst
}
func (format) Ping() []byte                    { return nil }
func (format) Close(hub.Reason, string) []byte { return nil }
func (format) Gap([]string) []byte             { return nil }

// subscriber is a connection's socket that takes everything, unless it is stuck.
type subscriber struct {
	mu      sync.Mutex
	changed *sync.Cond
	lines   []string
	stuck   bool
}

func (s *subscriber) TryWrite(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.stuck {
		s.changed.Wait()
	}
	s.lines = append(s.lines, strings.Split(strings.TrimSuffix(string(p), "\n"), "\n")...)
	s.changed.Broadcast()
	return len(p), nil
}

func (s *subscriber) Write(p []byte, _ time.Duration) (int, error) { return s.TryWrite(p) }
func (s *subscriber) Close()                                       {}

// stick has the hub's loop wait, as the machine does when it is too busy, or go on.
func (s *subscriber) stick(stuck bool) {
	s.mu.Lock()
	s.stuck = stuck
	s.changed.Broadcast()
	s.mu.Unlock()
}

// await returns what it has got, line by line, when that is enough.
func (s *subscriber) await(enough func(lines []string) bool) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	for !enough(s.lines) {
		s.changed.Wait()
	}
	return slices.Clone(s.lines)
}

// start returns a queue for the channel "log", and its subscriber on a hub, which is not used yet.
func start(t *testing.T, config hub.Config) (*queue, *hub.Hub, *subscriber) {
	h := hub.New(config)
	s := subscribe(t, h)
	q := open("log")
	t.Cleanup(func() {
		Leave(h)
		q.Close()
		closeHub(h)
	})
	return q, h, s
}

func subscribe(t testing.TB, h *hub.Hub) *subscriber {
	s := new(subscriber)
	s.changed = sync.NewCond(&s.mu)
	conn, _, err := h.Connect(hub.Subscriber{Channels: []string{"log"}}, &hub.ConnOptions{
		Format: format{}, PingInterval: time.Minute, WriteTimeout: time.Minute, MaxBacklog: 64 << 20,
	})
	if err != nil || !conn.Start(s, nil) {
		t.Fatal(err)
	}
	return s
}

func closeHub(h *hub.Hub) { h.Close(hub.ReasonRestart, "", 0, 0) }

// droppedBy returns how many entries a line says were dropped.
func droppedBy(line string) int {
	var v struct {
		Level, Logger, Msg string
		TS                 float64
		Dropped            int
	}
	if !strings.Contains(line, loggerName) {
		return 0
	}
	if json.Unmarshal([]byte(line[1:]), &v) != nil || v.Logger != "broadcast.log" {
		return 0
	}
	if v.Msg != "log entries were dropped" || v.Level != "warn" || v.TS < 1e9 || v.Dropped == 0 || line[0] != 'j' {
		panic(line)
	}
	return v.Dropped
}

// total returns how many entries lines account for.
func total(lines []string) (n int) {
	for _, line := range lines {
		if dropped := droppedBy(line); dropped > 0 {
			n += dropped
		} else {
			n++
		}
	}
	return n
}

func write(t *testing.T, q *queue, text string) {
	t.Helper()
	p := []byte(text + "\n")
	if n, err := q.Write(p); n != len(p) || err != nil {
		t.Fatal(n, err)
	}
	copy(p, bytes.Repeat([]byte{'?'}, len(p))) // as Caddy does, which has one buffer for many entries
}

// equal compares lines, whose notices have a time.
func equal(got, want []string) bool {
	return slices.EqualFunc(got, want, func(got, want string) bool {
		n := droppedBy(got)
		return n == 0 && got == want || n > 0 && droppedBy(want) == n
	})
}
