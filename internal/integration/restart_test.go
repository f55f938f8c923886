package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
	"github.com/caddy-broadcast/caddy-broadcast/internal/natstest"
)

// restarting is Caddy as a process that is replaced by another one with the same storage.
type restarting struct {
	*exiting
	cmd   *exec.Cmd
	ended chan error
	data  string
}

// startRestarting starts Caddy with history, in a directory for its data.
func startRestarting(t testing.TB, data string) *restarting {
	s := &restarting{exiting: prepareExit(t, "storage file_system "+data+"\nbroadcast {\nhistory 1000000\nhistory_bytes 64MiB\n}\n"), data: data}
	config, err := os.ReadFile(s.file)
	if err != nil {
		t.Fatal(err)
	}
	config = []byte(strings.Replace(string(config), "broadcast /ws\n", "broadcast /ws default {\nmax_message 1MiB\nmax_backlog 4MiB\n}\nbroadcast /socket.io/* {\nsocketio\n}\n", 1))
	if err := os.WriteFile(s.file, config, 0o600); err != nil {
		t.Fatal(err)
	}
	s.run()
	return s
}

func (s *restarting) run() { s.cmd, s.ended = s.start(s.T) }

// replaceBinary puts another binary in the place of the one that runs, as a package manager does it.
func (s *restarting) replaceBinary() {
	s.T.Helper()
	s.makeBinary(s.T)
	f, err := os.OpenFile(s.binary, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		s.T.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString("another one"); err != nil {
		s.T.Fatal(err)
	}
	s.replaced = true
}

// awaitEnd waits until the process has ended.
func (s *restarting) awaitEnd() {
	s.T.Helper()
	select {
	case <-s.ended:
	case <-time.After(20 * time.Second):
		s.T.Fatal("it does not end")
	}
}

// terminate ends the process cleanly.
func (s *restarting) terminate() {
	s.T.Helper()
	s.cmd.Process.Signal(syscall.SIGTERM)
	s.awaitEnd()
}

// saved returns the paths of the history files.
func (s *restarting) saved() []string {
	names, _ := filepath.Glob(filepath.Join(s.data, "broadcast", "*", "history"))
	return names
}

// hello returns what a client of broadcast.v1 is told that comes back.
func (s *restarting) hello(id string) string {
	s.T.Helper()
	c := s.Dial("/ws?last_id="+id, &websocket.DialOptions{Subprotocols: []string{"broadcast.v1"}})
	_, p, err := c.Read(s.T.Context())
	if err != nil {
		s.T.Fatal(err)
	}
	c.CloseNow() // or an exit would wait for its close frame
	return string(p)
}

// openPage has a page of Socket.IO get a message, and returns its ID, and what the page needs to go on.
func (s *restarting) openPage() (id, pid, offset string) {
	s.T.Helper()
	page := openSocket(s.Server, nil)
	s.Send(page, "40")
	_, connected, err := page.Read(s.T.Context())
	_, pid, ok := strings.Cut(string(connected), `"pid":"`)
	if err != nil || !ok {
		s.T.Fatal(string(connected), err)
	}
	pid, _, _ = strings.Cut(pid, `"`)
	id = s.Publish("event=e", "one")
	_, event, err := page.Read(s.T.Context())
	if err != nil || !strings.HasPrefix(string(event), `42["e","one",`) {
		s.T.Fatal(string(event), err)
	}
	return id, pid, strings.Split(string(event), `"`)[5]
}

// TestRestart: clients of every kind go on across a clean restart, and get each message once.
func TestRestart(t *testing.T) {
	for name, end := range map[string]func(s *restarting){
		"SIGTERM":                  (*restarting).terminate,
		"caddy stop":               func(s *restarting) { s.Do("POST", s.Admin+"/stop", ""); s.awaitEnd() },
		"a new binary is executed": func(s *restarting) { s.replaceBinary(); s.terminate() },
	} {
		t.Run(name, func(t *testing.T) {
			s := startRestarting(t, t.TempDir())
			first, pid, offset := s.openPage()
			second := s.Publish("event=e", "two")
			status, retried := s.Post(s.Admin+"/broadcast/publish?event=e", "text/plain", "three", "Idempotency-Key", "k")
			if status != 200 {
				t.Fatal(retried)
			}
			if end(s); len(s.saved()) != 1 {
				t.Fatal("there is no history file")
			}
			s.run()
			if len(s.saved()) != 0 {
				t.Error("the history file is still there")
			}
			if status, again := s.Post(s.Admin+"/broadcast/publish?event=e", "text/plain", "three", "Idempotency-Key", "k"); status != 200 || again != retried {
				t.Errorf("published twice: %s and %s", retried, again)
			}
			fourth := s.Publish("event=e", "four")
			if epoch := first[:strings.Index(first, "-")]; fourth != epoch+"-4" || second != epoch+"-2" {
				t.Errorf("%s follows %s", fourth, second)
			}
			s.expectResumed(first, pid, offset)
		})
	}
}

// expectResumed checks that clients that have the first message get three more.
func (s *restarting) expectResumed(first, pid, offset string) {
	s.T.Helper()
	c := s.Dial("/ws?last_id="+first, &websocket.DialOptions{Subprotocols: []string{"broadcast.v1"}})
	got := ""
	for !strings.Contains(got, "four") {
		_, p, err := c.Read(s.T.Context())
		if err != nil {
			s.T.Fatal(got, err)
		}
		got += string(p)
	}
	if !strings.Contains(got, `"resumed":true`) || strings.Count(got, `"event":"e"`) != 3 || strings.Contains(got, `"one"`) {
		s.T.Errorf("broadcast.v1: %s", got)
	}
	_, next := s.Stream("http://"+s.Addr+"/ws", "Last-Event-ID", first)
	events := eventsUntil(next, "four")
	for _, text := range []string{"one", "gap"} {
		if strings.Contains(events, text) {
			s.T.Errorf("event stream: %s", events)
		}
	}
	for _, text := range []string{"two", "three", "four"} {
		if strings.Count(events, text) != 1 {
			s.T.Errorf("event stream: %s", events)
		}
	}
	page := openSocket(s.Server, nil)
	s.Send(page, fmt.Sprintf(`40{"pid":"%s","offset":"%s"}`, pid, offset))
	_, p, err := page.Read(s.T.Context())
	if err != nil || !strings.Contains(string(p), `"pid":"`+pid+`"`) {
		s.T.Fatalf("Socket.IO: %s %v", p, err)
	}
	for _, text := range []string{"two", "three", "four"} {
		if _, p, err := page.Read(s.T.Context()); err != nil || !strings.HasPrefix(string(p), `42["e","`+text+`"`) {
			s.T.Fatalf("Socket.IO: %s %v, not %s", p, err, text)
		}
	}
}

// eventsUntil reads events until one has a text, or the stream ends.
func eventsUntil(next func() string, text string) (events string) {
	for !strings.Contains(events, text) {
		e := next()
		if events += e + "\n"; e == "EOF" {
			break
		}
	}
	return events
}

// TestRestartWithGap: whenever it is not certain that nothing is missing, clients are told of a gap.
func TestRestartWithGap(t *testing.T) {
	truncate := func(s *restarting, to func(size int64) int64) {
		for _, name := range s.saved() {
			if info, err := os.Stat(name); err != nil || os.Truncate(name, to(info.Size())) != nil {
				s.T.Fatal(err)
			}
		}
	}
	for name, end := range map[string]func(s *restarting){
		"killed":           func(s *restarting) { s.cmd.Process.Kill(); s.awaitEnd() },
		"truncated":        func(s *restarting) { s.terminate(); truncate(s, func(n int64) int64 { return n - 1 }) },
		"empty":            func(s *restarting) { s.terminate(); truncate(s, func(int64) int64 { return 0 }) },
		"of another start": func(s *restarting) { s.endAndKillNext() },
		// What is published meanwhile is missing in the file.
		"history_file off in between": func(s *restarting) { s.endAndRunWithout("\nhistory_file off\n") },
		"no history kept in between":  func(s *restarting) { s.endAndRunWithout("") },
	} {
		t.Run(name, func(t *testing.T) {
			s := startRestarting(t, t.TempDir())
			id, pid, offset := s.openPage()
			end(s)
			s.run()
			s.expectGaps(id, pid, offset)
			if len(s.saved()) != 0 {
				t.Error("the file is still there")
			}
			id = s.Publish("", "after") // and the next time it is as ever
			s.terminate()
			s.run()
			if got := s.hello(id); !strings.Contains(got, `"resumed":true`) {
				t.Error(got)
			}
		})
	}
}

// expectGaps checks that clients of every kind are told that they may miss messages.
func (s *restarting) expectGaps(id, pid, offset string) {
	s.T.Helper()
	if got := s.hello(id); !strings.Contains(got, `{"gap":`) {
		s.T.Errorf("broadcast.v1: %s", got)
	}
	_, next := s.Stream("http://"+s.Addr+"/ws", "Last-Event-ID", id)
	if events := eventsUntil(next, "event: gap"); !strings.Contains(events, "event: gap") {
		s.T.Errorf("event stream: %s", events)
	}
	// socket.recovered is false if the session is another one.
	page := openSocket(s.Server, nil)
	s.Send(page, fmt.Sprintf(`40{"pid":"%s","offset":"%s"}`, pid, offset))
	if _, p, err := page.Read(s.T.Context()); err != nil || !strings.Contains(string(p), `"pid":`) || strings.Contains(string(p), pid) {
		s.T.Errorf("Socket.IO: %s %v", p, err)
	}
}

// endAndKillNext puts the file back that one process has left, when the next one, which is killed, has read it.
func (s *restarting) endAndKillNext() {
	s.T.Helper()
	s.terminate()
	name := s.saved()[0]
	p, err := os.ReadFile(name)
	if err != nil {
		s.T.Fatal(err)
	}
	s.run()
	s.Publish("", "lost")
	s.cmd.Process.Kill()
	s.awaitEnd()
	if err := os.WriteFile(name, p, 0o600); err != nil {
		s.T.Fatal(err)
	}
}

// endAndRunWithout has a process in between that does not use the file.
func (s *restarting) endAndRunWithout(options string) {
	s.T.Helper()
	s.terminate()
	config, err := os.ReadFile(s.file)
	if err != nil {
		s.T.Fatal(err)
	}
	history := "history 1000000\n"
	without := strings.Replace(string(config), history, options, 1)
	if options != "" {
		without = strings.Replace(string(config), history, history+options, 1)
	}
	if err := os.WriteFile(s.file, []byte(without), 0o600); err != nil || without == string(config) {
		s.T.Fatal(err)
	}
	s.run()
	s.Publish("", "lost")
	s.terminate()
	if err := os.WriteFile(s.file, config, 0o600); err != nil {
		s.T.Fatal(err)
	}
}

// TestRestartAfterFailure: a start that fails, as with a mistake in the configuration, leaves the history for the next one.
func TestRestartAfterFailure(t *testing.T) {
	s := startRestarting(t, t.TempDir())
	id := s.Publish("", "before")
	s.terminate()
	config, err := os.ReadFile(s.file)
	if err != nil {
		t.Fatal(err)
	}
	for range 8 { // Caddy starts apps in random order
		if err := os.WriteFile(s.file, append(config, "http://192.0.2.1:1 {\nbind 192.0.2.1\n}\n"...), 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(s.binary, "run", "--config", s.file, "--adapter", "caddyfile")
		cmd.Env = append(os.Environ(), caddytest.AsCaddy+"=1")
		if out, err := cmd.CombinedOutput(); err == nil {
			t.Fatalf("it runs: %s", out)
		}
	}
	if err := os.WriteFile(s.file, config, 0o600); err != nil {
		t.Fatal(err)
	}
	s.run()
	if got := s.hello(id); !strings.Contains(got, `"resumed":true`) {
		t.Error(got)
	}
}

// TestRestartOfTwo: of two processes with one storage only the one that started last saves its history.
func TestRestartOfTwo(t *testing.T) {
	data := t.TempDir()
	blue := startRestarting(t, data)
	blue.Publish("", "blue")
	green := startRestarting(t, data)
	id := green.Publish("", "green")
	blue.terminate()
	if len(green.saved()) != 0 {
		t.Error("the first one has saved its history")
	}
	blue.WaitLog("another process has started with the same storage")
	green.terminate()
	green.run()
	if got := green.hello(id); !strings.Contains(got, `"resumed":true`) {
		t.Error(got)
	}
}

// TestRestartWithFullDisk: a history that cannot be saved is lost, and nothing else.
func TestRestartWithFullDisk(t *testing.T) {
	disk := natstest.NewDisk(t, 4<<20)
	s := startRestarting(t, disk.Dir)
	id := s.Publish("", "before")
	disk.Fill()
	s.terminate()
	s.WaitLog("the history is not saved")
	disk.Free()
	s.run()
	if got := s.hello(id); !strings.Contains(got, `{"gap":`) {
		t.Error(got)
	}
}

// fill publishes as much as is kept, and returns the last ID.
func (s *restarting) fill(size int) string {
	s.T.Helper()
	line := `{"data":"` + strings.Repeat("x", size) + "\"}\n"
	per := min(1<<16, 15<<20/len(line))
	for left := 64 << 20 / (size + 256); left > 0; left -= per {
		if status, body := s.Post(s.Admin+"/broadcast/publish", "application/x-ndjson", strings.Repeat(line, min(left, per))); status != 200 {
			s.T.Fatal(status, body)
		}
	}
	return s.Publish("", "last")
}

// BenchmarkRestart: how long exit and start take with 64 MiB of history, and without any.
func BenchmarkRestart(b *testing.B) {
	for _, size := range []int{-1, 10, 1000, 60_000} {
		b.Run(fmt.Sprint("size=", size), func(b *testing.B) {
			s := startRestarting(b, b.TempDir())
			var exit, start time.Duration
			for b.Loop() {
				id := ""
				if size >= 0 {
					id = s.fill(size)
				} else {
					id = s.Publish("", "only")
				}
				begin := time.Now()
				s.terminate()
				exit += time.Since(begin)
				begin = time.Now()
				s.run()
				// The history is restored before the first connection.
				if got := s.hello(id); !strings.Contains(got, `"resumed":true`) {
					b.Fatal(got)
				}
				start += time.Since(begin)
			}
			b.ReportMetric(float64(exit.Milliseconds())/float64(b.N), "ms-to-exit")
			b.ReportMetric(float64(start.Milliseconds())/float64(b.N), "ms-to-start")
		})
	}
}
