package integration

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/coder/websocket"

	"github.com/caddy-broadcast/caddy-broadcast/broker/brokertest"
	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
	"github.com/caddy-broadcast/caddy-broadcast/internal/logwriter"
)

// logEntry is an entry of Caddy's log, as it is published.
type logEntry struct {
	Logger, Msg string
	URI         string // of requests to the admin API
	Request     struct{ URI string }
	Status      int
	Dropped     uint64
	Reader      bool `json:"broadcast_log"`
}

// expectEntry reads the next log entry, which must be about a request.
func expectEntry(s *caddytest.Server, c *websocket.Conn, uri string) logEntry {
	s.T.Helper()
	_, p, err := c.Read(s.T.Context())
	var e logEntry
	if err == nil {
		err = json.Unmarshal(p, &e)
	}
	if err != nil || e.Request.URI+e.URI != uri {
		s.T.Fatalf("not the entry of %s but %v: %s", uri, err, p)
	}
	return e
}

// TestLog: an access log is published on a channel, with what the route's own subscribers do left out of it, but not out of
// other logs.
func TestLog(t *testing.T) {
	s := caddytest.Start(t, `log a {
			output broadcast log
		}
		log b {
			output file LOG
		}
		broadcast /log log
		broadcast /any {
			join *
		}
		respond 204`)
	c := s.Dial("/log", nil)
	s.Do(http.MethodGet, s.Addr+"/a", "")
	if e := expectEntry(s, c, "/a"); e.Status != 204 || !strings.HasPrefix(e.Logger, "http.log.access") || e.Msg != "handled request" {
		t.Errorf("%+v", e)
	}
	// A client that could join, or publishes there, has entries in no log that is published.
	s.Dial("/any", nil)
	s.Dial("/log", nil)
	s.Post(s.Addr+"/log", "text/plain", "by hand")
	s.Expect(c, "by hand")
	s.Do(http.MethodGet, s.Addr+"/b?%22broadcast_log%22:true", "", "broadcast_log", "true", "Logger", "broadcast.log")
	expectEntry(s, c, "/b?%22broadcast_log%22:true")
	s.WaitLog(`"broadcast_log":true`)
}

// TestLogPolling: a client that gets an entry as the response to a request does not cause the next entry by that.
func TestLogPolling(t *testing.T) {
	for format, line := range map[string]string{"json": `{"level":"info"`, "console": "\thandled request\t"} {
		t.Run(format, func(t *testing.T) {
			s := caddytest.Start(t, `log {
				output broadcast log
				format `+format+`
			}
			broadcast /socket.io/* log {
				socketio
			}
			respond 204`)
			do := func(method, path, body string) (int, string) { return s.Do(method, s.Addr+path, body) }
			sid := openSession(t, do)
			for _, uri := range []string{"/1", "/2", "/3"} {
				do("GET", uri, "")
				_, body := do("GET", polling+sid, "")
				body = strings.ReplaceAll(body, `\"`, `"`)
				body = strings.ReplaceAll(body, `\t`, "\t")
				if !strings.Contains(body, line) || !strings.Contains(strings.ReplaceAll(body, " ", ""), `"uri":"`+uri+`"`) || strings.Contains(body, "\x1e") {
					t.Errorf("after %s: %s", uri, body)
				}
			}
		})
	}
}

// TestLogSubscribed: the same holds for a client that a backend has subscribed to the log, which its route does not have.
func TestLogSubscribed(t *testing.T) {
	s := caddytest.Start(t, `log {
			output broadcast log
		}
		broadcast /socket.io/* chat {
			socketio
			user ann
		}
		respond 204`)
	do := func(method, path, body string) (int, string) { return s.Do(method, s.Addr+path, body) }
	sid := openSession(t, do)
	if status, answer := s.Do("POST", s.Admin+"/broadcast/subscriptions", `{"user":"ann","channel":"log"}`); status != 200 {
		t.Fatal(status, answer)
	}
	for _, uri := range []string{"/1", "/2", "/3"} {
		do("GET", uri, "")
		for told := false; !told; {
			_, body := do("GET", polling+sid, "")
			if strings.Contains(body, "sid=") {
				t.Fatalf("it feeds itself: %s", body)
			}
			told = strings.Contains(body, `"uri":"`+uri+`"`)
		}
	}
}

// publishWholeLog runs a Caddy whose default log is published on the channel ops.
func publishWholeLog(t *testing.T, log, global, site string) *caddytest.Server {
	t.Helper()
	s := &caddytest.Server{T: t, Addr: caddytest.FreeAddr(t), Admin: caddytest.FreeAddr(t)}
	caddytest.Run(t, strings.NewReplacer("ADDR", s.Addr, "ADMIN", s.Admin, "LOG", log, "GLOBAL", global, "SITE", site).Replace(`{
		admin ADMIN
		persist_config off
		log {
			output broadcast ops
			LOG
		}
		GLOBAL
	}
	http://ADDR {
		SITE
	}`))
	return s
}

// TestLogOfAdmin: Caddy's whole log can be published, also what was logged before the hub existed. Publishing and subscribing
// with the admin API leave nothing in it.
func TestLogOfAdmin(t *testing.T) {
	s := publishWholeLog(t, "", `broadcast {
			history 1000
		}`, `broadcast /ops ops {
			replay 1000
		}`)
	s.Stream("http://" + s.Admin + "/broadcast/stream?channel=ops&replay=1000")
	c := s.Dial("/ops", nil)
	for { // of the start
		_, p, err := c.Read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(p), `"logger":"admin","msg":"admin endpoint started"`) {
			break
		}
	}
	s.Publish("channel=ops", "by hand")
	s.Do(http.MethodGet, s.Admin+"/broadcast", "")
	s.Do(http.MethodGet, s.Admin+"/config/apps/x", "")
	for published := false; ; { // servers may still be starting
		_, p, err := c.Read(t.Context())
		switch {
		case err != nil:
			t.Fatal(err)
		case string(p) == "by hand":
			published = true
		case strings.Contains(string(p), `"uri":"/broadcast`):
			t.Errorf("it feeds itself: %s", p)
		case strings.Contains(string(p), `"uri":"/config/apps/x"`):
			if !published {
				t.Error("the message by hand is missing")
			}
			return
		}
	}
}

// TestLogDebug: what other handlers log about a client that polls is left out too.
func TestLogDebug(t *testing.T) {
	s := publishWholeLog(t, "level DEBUG", "", `handle_path /x/* {
			broadcast /socket.io/* ops {
				socketio
			}
		}`)
	do := func(method, path, body string) (int, string) { return s.Do(method, s.Addr+path, body) }
	poll := func(method, path, body string) (int, string) { return do(method, "/x"+path, body) }
	sid := beginSession(t, func() (int, string) { return poll("GET", polling, "") })
	if status, body := poll("POST", polling+sid, "40"); status != 200 {
		t.Fatal(status, body)
	}
	s.Do(http.MethodGet, s.Admin+"/config/apps/x", "")
	for told := false; !told; {
		status, body := poll("GET", polling+sid, "")
		if status != 200 || strings.Contains(body, "transport=polling") {
			t.Fatalf("it feeds itself: %d %s", status, body)
		}
		told = strings.Contains(body, `"uri":"/config/apps/x"`)
	}
}

// TestLogReload: a log can move to another channel, and go on with the same one.
func TestLogReload(t *testing.T) {
	const config = `log {
			output broadcast CHANNEL
		}
		broadcast /log/* {path.1}
		respond 204`
	on := func(channel string) string { return strings.ReplaceAll(config, "CHANNEL", channel) }
	s := caddytest.Start(t, on("a"))
	a, b := s.Dial("/log/a", nil), s.Dial("/log/b", nil)
	expectEntry(s, a, "/log/b") // which is just another channel yet
	for _, channel := range []string{"a", "b", "b", "a"} {
		if err := s.Load(on(channel)); err != nil {
			t.Fatal(err)
		}
		s.Do(http.MethodGet, s.Addr+"/"+channel, "")
		expectEntry(s, map[string]*websocket.Conn{"a": a, "b": b}[channel], "/"+channel)
	}
}

// TestLogErrors: a log without a valid channel is rejected.
func TestLogErrors(t *testing.T) {
	for output, want := range map[string]string{
		"broadcast":                 "output broadcast needs the channel to publish on",
		"broadcast a b":             "wrong argument count",
		"broadcast a {\nsize 1\n}":  `output broadcast has no options, but there is "size"`,
		`broadcast ""`:              "no channel is given",
		"broadcast {env.NOT_SET_X}": "NOT_SET_X",
	} {
		err := caddytest.Load("{\nadmin off\npersist_config off\nlog {\noutput " + output + "\n}\n}")
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, not %q", output, err, want)
		}
	}
}

// TestLogBroker: entries go to a message broker, and wait while it is down for a moment. Requests do not wait for it.
func TestLogBroker(t *testing.T) {
	m := newMemory(t, "log", brokertest.MemoryConfig{})
	s := caddytest.Start(t, strings.Replace(onBroker("log", `log {
			output broadcast log
		}
		broadcast /log log
		respond 204`), "partition_timeout 1s", "partition_timeout 30s", 1))
	awaitHealth(s, http.StatusNoContent)
	c := s.Dial("/log", nil)
	for _, uri := range []string{"/0", "/1", "/2", "/3"} {
		s.Do(http.MethodGet, s.Addr+uri, "")
		if uri == "/0" {
			expectEntry(s, c, uri)
			m.Stop()
		}
	}
	m.Start()
	for _, uri := range []string{"/1", "/2", "/3"} {
		expectEntry(s, c, uri)
	}
}

// TestLogStorm: while nothing can be published, requests do not wait for their log entries. What waits is bounded, and
// afterwards the channel says how many entries are missing.
func TestLogStorm(t *testing.T) {
	m := newMemory(t, "storm", brokertest.MemoryConfig{})
	s := caddytest.Start(t, strings.Replace(onBroker("storm", `log {
			output broadcast log
		}
		broadcast /log log {
			max_backlog 8MiB
		}
		respond 204`), "partition_timeout 1s", "partition_timeout 5m", 1))
	awaitHealth(s, http.StatusNoContent)
	c := s.Dial("/log", nil)
	c.SetReadLimit(-1)
	before := logwriter.Dropped()
	m.Stop()
	requests := uint64(0)
	for long := "/?" + strings.Repeat("x", 16<<10); logwriter.Dropped() < before+10; requests++ {
		if status, _ := s.Do(http.MethodGet, s.Addr+long, ""); status != 204 {
			t.Fatal(status)
		}
	}
	dropped := logwriter.Dropped() - before
	s.ExpectMetrics(fmt.Sprintf("log_dropped_total %d", logwriter.Dropped()))
	m.Start()
	for total, missing := uint64(0), uint64(0); total < requests; {
		_, p, err := c.Read(t.Context())
		var e logEntry
		if err == nil {
			err = json.Unmarshal(p, &e)
		}
		if err != nil {
			t.Fatalf("%v after %d entries, %d of them missing: %.100s", err, total, missing, p)
		}
		if e.Logger != "broadcast.log" {
			total++
			continue
		}
		total, missing = total+e.Dropped, missing+e.Dropped
		if total == requests && missing < dropped {
			t.Errorf("%d are missing, and %d were dropped", missing, dropped)
		}
	}
}

// TestLogsTogether: several logs can have one channel, each with its level, its format, and its part of what is logged.
func TestLogsTogether(t *testing.T) {
	s := caddytest.Start(t, `log everything {
			output broadcast log
			format filter {
				request>uri replace HIDDEN
				wrap json
			}
			sampling {
				interval 1h
				first 4
				thereafter 1000000
			}
		}
		log faults {
			output broadcast log
			format console
			level ERROR
		}
		broadcast /log log
		respond /fault 500
		respond 204`)
	c := s.Dial("/log", nil)
	do := func(path string, want ...string) {
		t.Helper()
		s.Do(http.MethodGet, s.Addr+path, "")
		for len(want) > 0 {
			_, p, err := c.Read(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			i := slices.IndexFunc(want, func(w string) bool { return strings.Contains(string(p), w) })
			if i < 0 {
				t.Fatalf("%s is none of %q", p, want)
			}
			want = slices.Delete(want, i, i+1)
		}
	}
	const filtered, console = `"uri":"HIDDEN"`, "\thttp.log.access.faults\t"
	for _, path := range []string{"/a", "/b", "/c"} {
		do(path, filtered)
	}
	do("/d") // left out by the sampling, which counts each level by itself, and also the request to /log
	do("/fault", filtered, console)
}

// TestLogExit: what Caddy logs about its end still reaches subscribers.
func TestLogExit(t *testing.T) {
	s := prepareExit(t, "")
	config, err := os.ReadFile(s.file)
	if err == nil {
		err = os.WriteFile(s.file, []byte(strings.Replace(string(config), "output file "+s.Log, "output broadcast default", 1)), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	cmd, ended := s.start(t)
	c := s.Dial("/ws", nil)
	cmd.Process.Signal(syscall.SIGTERM)
	for told := false; ; {
		_, p, err := c.Read(t.Context())
		if told = told || strings.Contains(string(p), `"msg":"shutting down apps, then terminating"`); err == nil {
			continue
		}
		if code := websocket.CloseStatus(err); !told || code != websocket.StatusServiceRestart {
			t.Errorf("told of the end: %v, and then %v", told, err)
		}
		break
	}
	<-ended
}
