package integration

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/coder/websocket"

	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
)

// TestCommands runs `caddy broadcast …` against a running Caddy.
func TestCommands(t *testing.T) {
	s := caddytest.Start(t, `broadcast /ws/* room:{path.1} {
			user {query.user}
		}`)
	command := func(stdin string, args ...string) *exec.Cmd {
		cmd := exec.Command(os.Args[0], append([]string{"broadcast"}, append(args, "--address", s.Admin)...)...)
		cmd.Env = append(os.Environ(), caddytest.AsCaddy+"=1")
		cmd.Stdin = strings.NewReader(stdin)
		return cmd
	}
	alike := func(s string) string {
		s = regexp.MustCompile(`[A-Z2-7]{8}-\d+`).ReplaceAllString(s, "ID")
		s = regexp.MustCompile(`\d\d:\d\d:\d\d\.\d+`).ReplaceAllString(s, "TIME")
		return regexp.MustCompile(` +`).ReplaceAllString(s, " ")
	}
	run := func(stdin string, args ...string) (out string, good bool) {
		t.Helper()
		cmd := command(stdin, args...)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		p, err := cmd.Output()
		if err != nil {
			if exit := new(exec.ExitError); !errors.As(err, &exit) || exit.ExitCode() != 1 {
				t.Errorf("%q: %v", args, err)
			}
			return stderr.String(), false
		}
		return alike(string(p)), true
	}
	tail := command("", "tail")
	seen, err := tail.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := tail.Start(); err != nil {
		t.Fatal(err)
	}
	defer tail.Wait()
	defer tail.Process.Kill()
	s.WaitTotals(func(v caddytest.Totals) bool { return v.Connections == 1 })

	ann, ben := s.Dial("/ws/1?user=ann", nil), s.Dial("/ws/2?user=ben", nil)
	for _, c := range []struct {
		stdin string
		args  []string
		want  string
	}{
		{"", []string{"publish", "hello", "--channel", "room:1"}, "ID to 1\n"},
		{"from stdin", []string{"publish", "--channel", "room:1", "--event", "e\u00e4"}, "ID to 1\n"},
		{"", []string{"publish", `{"a":1}`, "--as", "json", "--channel", "room:1", "--json"}, `{"id":"ID","channel":"room:1","subscribers":1}` + "\n"},
		{"one\n\ntwo\r\nthree", []string{"publish", "--lines", "--channel", "room:1"}, "ID to 1\nID to 1\nID to 1\nID to 1\n"},
		{"", []string{"channels"}, "CHANNEL SUBSCRIBERS HISTORY LAST ID\nroom:1 1 0 \nroom:2 1 0 \n"},
		{"", []string{"channels", "room:2", "--json"}, `{"channel":"room:2","subscribers":1,"history":0}` + "\n"},
		{"", []string{"connections", "--user", "nobody"}, "ID USER REMOTE TRANSPORT SINCE SENT BACKLOG CHANNELS\n"},
		{"", []string{"connections", "--channel", "room:2"}, "ID USER REMOTE TRANSPORT SINCE SENT BACKLOG CHANNELS\nc3 ben 127.0.0.1 websocket 0s 0 0 room:2\n"},
		{"", []string{"kick", "--user", "ben"}, "closed 1\n"},
		{"", []string{"publish", "\x1b[31mred", "--channel", "room:1"}, "ID to 1\n"},
	} {
		out, good := run(c.stdin, c.args...)
		out = regexp.MustCompile(` \d+s `).ReplaceAllString(out, " 0s ")
		if !good || out != c.want {
			t.Errorf("%q: %v %q, not %q", c.args, good, out, c.want)
		}
	}
	s.Expect(ann, "hello", "from stdin", `{"a":1}`, "one", "", "two", "three", "\x1b[31mred")
	for _, more := range [][]string{nil, {"--admin", "--channel", "room:9"}} {
		args := append([]string{"bench", "http://" + s.Addr + "/ws/9", "--connections", "20", "--duration", "300ms", "--rate", "100", "--json"}, more...)
		out, good := run("", args...)
		var v struct{ Connections, Messages, Deliveries, Missing int }
		if err := json.Unmarshal([]byte(out), &v); !good || err != nil || v.Connections != 20 || v.Messages < 5 || v.Deliveries != 20*v.Messages {
			t.Errorf("%q: %v %s", args, good, out)
		}
	}
	if out, good := run("", "bench", "http://"+s.Addr+"/ws/9", "--connections", "2", "--duration", "50ms"); !good || !strings.Contains(out, "2 connections in") {
		t.Errorf("bench: %v %q", good, out)
	}
	s.ExpectClose(ben, websocket.StatusPolicyViolation)
	ui := command("", "ui", "--listen", "localhost:0")
	shown, err := ui.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := ui.Start(); err != nil {
		t.Fatal(err)
	}
	defer ui.Wait()
	defer ui.Process.Kill()
	url, err := bufio.NewReader(shown).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	if status, body := s.Do("GET", strings.TrimPrefix(strings.TrimSpace(url), "http://")+"/broadcast", ""); status != 200 || !strings.Contains(body, `"uptime"`) {
		t.Errorf("ui: %d %s", status, body)
	}
	in := bufio.NewReader(seen)
	for _, want := range []string{"hello", "e\u00e4 from stdin", `{"a":1}`, "one", "", "two", "three", `\x1b[31mred`} {
		line, err := in.ReadString('\n')
		want = "TIME room:1 " + want + "\n"
		if line = alike(line); line != want {
			t.Errorf("tail: %q and %v, not %q", line, err, want)
		}
	}
	for _, c := range []struct {
		stdin, want string
		args        []string
	}{
		{"", "must be text, json or binary", []string{"publish", "x", "--as", "xml"}},
		{"", "is not JSON", []string{"publish", "{", "--as", "json"}},
		{"{}\n{\n", "line 2: not valid JSON", []string{"publish", "--lines", "--as", "json"}},
		{"", "cannot be combined with an argument", []string{"publish", "x", "--lines"}},
		{"", "specify a connection ID", []string{"kick"}},
		{"", "is not the ID", []string{"kick", "x"}},
		{"", "no such connection", []string{"kick", "c99"}},
		{"", "control character", []string{"tail", "a\x01"}},
		{"", "is not the URL of a route", []string{"bench", "localhost"}},
		{"", "must be a loopback address", []string{"ui", "--listen", "0.0.0.0:0"}},
		{"", "the handshake got the response 200", []string{"bench", "http://" + s.Addr + "/none"}},
	} {
		if out, good := run(c.stdin, c.args...); good || !strings.Contains(out, c.want) {
			t.Errorf("%q: %v %q lacks %q", c.args, good, out, c.want)
		}
	}
}
