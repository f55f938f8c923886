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

	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
)

// commandLine runs `caddy broadcast …` against a running Caddy.
type commandLine struct{ *caddytest.Server }

func startForCommands(t *testing.T) commandLine {
	return commandLine{caddytest.Start(t, "broadcast {\nhistory room:1 1\n}\n---\n"+`broadcast /ws/* room:{path.1} {
			user {query.user}
		}
		broadcast /quiet {
			publish off
		}
		broadcast /bad {query.none}`)}
}

func (s commandLine) command(stdin string, args ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], append([]string{"broadcast"}, append(args, "--address", s.Admin)...)...)
	cmd.Env = append(os.Environ(), caddytest.AsCaddy+"=1")
	cmd.Stdin = strings.NewReader(stdin)
	return cmd
}

// run returns what a command prints, and whether it succeeds.
func (s commandLine) run(t *testing.T, stdin string, args ...string) (out string, good bool) {
	t.Helper()
	cmd := s.command(stdin, args...)
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

// start starts a command that runs until the test ends, and returns what it prints.
func (s commandLine) start(t *testing.T, args ...string) *bufio.Reader {
	t.Helper()
	cmd := s.command("", args...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	return bufio.NewReader(out)
}

// alike replaces what differs from run to run.
func alike(s string) string {
	s = regexp.MustCompile(`[A-Z2-7]{8}-\d+`).ReplaceAllString(s, "ID")
	s = regexp.MustCompile(`\d\d:\d\d:\d\d\.\d+`).ReplaceAllString(s, "TIME")
	s = regexp.MustCompile(`\d{4}-\d\d-\d\d \d\d:\d\d:\d\d`).ReplaceAllString(s, "NOW")
	return regexp.MustCompile(` +`).ReplaceAllString(s, " ")
}

const connectionsHead = "ID USER REMOTE TRANSPORT SINCE SENT BACKLOG CHANNELS\n"

// commandRows are run in this order. got is what ann is sent by them, and tail what `caddy broadcast tail` shows of it.
var commandRows = []struct {
	name, stdin string
	args        []string
	want        string
	got, tail   []string
}{
	{
		name: "publish an argument", args: []string{"publish", "hello", "--channel", "room:1"}, want: "ID to 1\n",
		got: []string{"hello"}, tail: []string{"hello"},
	},
	{
		name: "publish stdin as an event", stdin: "from stdin", args: []string{"publish", "--channel", "room:1", "--event", "e\u00e4"}, want: "ID to 1\n",
		got: []string{"from stdin"}, tail: []string{"e\u00e4 from stdin"},
	},
	{
		name: "publish JSON and print JSON", args: []string{"publish", `{"a":1}`, "--as", "json", "--channel", "room:1", "--json"},
		want: `{"id":"ID","channel":"room:1","subscribers":1}` + "\n",
		got:  []string{`{"a":1}`}, tail: []string{`{"a":1}`},
	},
	{
		name: "publish lines", stdin: "one\n\ntwo\r\nthree", args: []string{"publish", "--lines", "--channel", "room:1"},
		want: "ID to 1\nID to 1\nID to 1\nID to 1\n",
		got:  []string{"one", "", "two", "three"}, tail: []string{"one", "", "two", "three"},
	},
	{
		name: "list channels", args: []string{"channels"},
		want: "CHANNEL SUBSCRIBERS HISTORY LAST ID\nroom:1 1 1 ID\nroom:2 1 0 \n",
	},
	{
		name: "list one channel as JSON", args: []string{"channels", "room:2", "--json"},
		want: `{"channel":"room:2","subscribers":1,"history":0}` + "\n",
	},
	{
		name: "list connections of nobody", args: []string{"connections", "--user", "nobody"},
		want: connectionsHead,
	},
	{
		name: "list connections of a channel", args: []string{"connections", "--channel", "room:2"},
		want: connectionsHead + "c3 ben 127.0.0.1 websocket 0s 0 0 room:2\n",
	},
	{
		name: "subscribe a user", args: []string{"subscribe", "vip", "--user", "ann"}, want: "subscribed 1\n",
	},
	{
		name: "subscribe a connection and print JSON", args: []string{"subscribe", "vip", "c3", "--json"}, want: `{"subscribed":1}` + "\n",
	},
	{
		name: "list connections of the channel that they were subscribed to", args: []string{"connections", "--channel", "vip", "--user", "ben"},
		want: connectionsHead + "c3 ben 127.0.0.1 websocket 0s 0 0 room:2 vip\n",
	},
	{
		name: "unsubscribe a connection", args: []string{"unsubscribe", "vip", "c3"}, want: "unsubscribed 1\n",
	},
	{
		name: "unsubscribe a user", args: []string{"unsubscribe", "vip", "--user", "ann"}, want: "unsubscribed 1\n",
	},
	{
		name: "kick a user with a code", args: []string{"kick", "--user", "ben", "--code", "4403"}, want: "closed 1\n",
	},
	{
		name: "publish an empty message", args: []string{"publish", "--empty", "--channel", "room:1"}, want: "ID to 1\n",
		got: []string{""}, tail: []string{""},
	},
	{
		name: "publish a control character", args: []string{"publish", "\x1b[31mred", "--channel", "room:1"}, want: "ID to 1\n",
		got: []string{"\x1b[31mred"}, tail: []string{`\x1b[31mred`},
	},
	{
		name: "publish what is kept", args: []string{"publish", "kept", "--channel", "room:1"}, want: "ID to 1\n",
		got: []string{"kept"}, tail: []string{"kept"},
	},
	{
		name: "publish what is not", args: []string{"publish", "--keep=false", "not", "--channel", "room:1"}, want: "ID to 1\n",
		got: []string{"not"}, tail: []string{"not"},
	},
	{
		name: "list what is kept", args: []string{"history", "room:1"}, want: "ID TIME EVENT DATA\nID NOW kept\n",
	},
}

// TestCommands: what the commands print, and what clients and `caddy broadcast tail` get of it.
func TestCommands(t *testing.T) {
	s := startForCommands(t)
	tail := s.start(t, "tail")
	s.WaitTotals(func(v caddytest.Totals) bool { return v.Connections == 1 })
	ann, ben := s.Dial("/ws/1?user=ann", nil), s.Dial("/ws/2?user=ben", nil)
	for _, c := range commandRows {
		t.Run(c.name, func(t *testing.T) {
			out, good := s.run(t, c.stdin, c.args...)
			out = regexp.MustCompile(` \d+s `).ReplaceAllString(out, " 0s ")
			if !good || out != c.want {
				t.Errorf("%q: %v %q, not %q", c.args, good, out, c.want)
			}
			s.Server.In(t).Expect(ann, c.got...)
			for _, want := range c.tail {
				line, err := tail.ReadString('\n')
				want = "TIME room:1 " + want + "\n"
				if line = alike(line); line != want {
					t.Errorf("tail: %q and %v, not %q", line, err, want)
				}
			}
			if c.args[0] == "kick" {
				s.Server.In(t).ExpectClose(ben, 4403)
			}
		})
	}
}

// TestBenchCommand: what the load generator counts adds up.
func TestBenchCommand(t *testing.T) {
	s := startForCommands(t)
	url := "http://" + s.Addr + "/ws/9"
	for name, more := range map[string][]string{"by a client": nil, "by the admin API": {"--admin", "--channel", "room:9"}} {
		t.Run(name, func(t *testing.T) {
			args := append([]string{"bench", url, "--connections", "20", "--duration", "300ms", "--rate", "100", "--json"}, more...)
			out, good := s.run(t, "", args...)
			var v struct{ Connections, Messages, Deliveries, Missing int }
			if err := json.Unmarshal([]byte(out), &v); !good || err != nil || v.Connections != 20 || v.Messages < 5 || v.Deliveries != 20*v.Messages {
				t.Errorf("%q: %v %s", args, good, out)
			}
		})
	}
	t.Run("as text", func(t *testing.T) {
		out, good := s.run(t, "", "bench", url, "--connections", "2", "--duration", "50ms")
		if !good || !strings.Contains(out, "2 connections in") || !regexp.MustCompile(`(?m)^ up to +\S+ ms +\d+\.\d\d % #+$`).MatchString(out) {
			t.Errorf("bench: %v %q", good, out)
		}
	})
	t.Run("progress", func(t *testing.T) {
		// The standard error is a buffer here, so it is shown only if it is asked for.
		for _, more := range []string{"", "--progress"} {
			args := []string{"bench", url, "--connections", "2", "--duration", "1200ms"}
			if more != "" {
				args = append(args, more)
			}
			cmd := s.command("", args...)
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			if err := cmd.Run(); err != nil {
				t.Errorf("%v: %s", err, stderr.String())
			}
			if shown := strings.Contains(stderr.String(), " messages, "); shown != (more != "") {
				t.Errorf("bench %s: %q", more, stderr.String())
			}
		}
	})
}

// TestDoctorCommand: what it prints, as text and as JSON, and its exit code. The checks have tests of their own.
func TestDoctorCommand(t *testing.T) {
	s := startForCommands(t)
	url := "http://" + s.Addr + "/ws/9"
	out, good := s.run(t, "", "doctor", url, "--idle", "0", "--publish")
	if !good || !strings.Contains(out, "ok websocket it opens, on the channels room:9") || !strings.Contains(out, "comes back on room:9") {
		t.Errorf("doctor: %v %s", good, out)
	}
	for _, c := range []struct {
		name string
		args []string
		want string
	}{
		{"something is wrong", []string{"http://" + s.Addr + "/none", "--idle", "0"}, "1 thing is wrong"},
		{"not a URL", []string{"ftp://x"}, "is not the URL of a route"},
		{"not a header", []string{url, "--header", "x"}, `must be "Name: value"`},
		{"not an origin", []string{url, "--origin", "example.com"}, "must be a scheme and a host"},
		{"not an address", []string{url, "--connect", "example.com"}, "must be host:port"},
		{"an IPv6 address without a port", []string{url, "--connect", "::1"}, "must be host:port"},
		{"not a port", []string{"http://localhost:99999/ws"}, "is not the URL of a route"},
		{"no host", []string{"/ws"}, `"/ws" is not the URL of a route`},
		{"a header Host", []string{url, "--header", "Host: example.com"}, "the host is that of the URL"},
		{"no time", []string{url, "--wait", "0"}, "--wait must be greater than 0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if out, good := s.run(t, "", append([]string{"doctor"}, c.args...)...); good || !strings.Contains(out, c.want) {
				t.Errorf("doctor %q: %v %s lacks %q", c.args, good, out, c.want)
			}
		})
	}
	t.Run("JSON", func(t *testing.T) {
		cmd := s.command("", "doctor", "http://"+s.Addr+"/none", "--idle", "0", "--json")
		p, err := cmd.Output()
		var v struct {
			OK       bool
			Findings []struct {
				Check, State, Found, Fix string
				Lines                    []struct{ Of, In, Text string }
			}
		}
		if json.Unmarshal(p, &v) != nil || err == nil || v.OK {
			t.Fatalf("%v: %s", err, p)
		}
		for _, f := range v.Findings {
			if f.State == "problem" && f.Check == "route" && f.Fix != "" && len(f.Lines) == 1 && f.Lines[0].Text == "broadcast /none" {
				return
			}
		}
		t.Errorf("%s", p)
	})
}

// TestUICommand: `caddy broadcast ui` prints its address, and answers there for the admin API.
func TestUICommand(t *testing.T) {
	s := startForCommands(t)
	url, err := s.start(t, "ui", "--listen", "localhost:0").ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	if status, body := s.Do("GET", strings.TrimPrefix(strings.TrimSpace(url), "http://")+"/broadcast", ""); status != 200 || !strings.Contains(body, `"uptime"`) {
		t.Errorf("ui: %d %s", status, body)
	}
}

// TestWrongCommands: a command that cannot be done says why.
func TestWrongCommands(t *testing.T) {
	s := startForCommands(t)
	for _, c := range []struct {
		name, stdin string
		args        []string
		want        string
	}{
		{name: "publish as XML", args: []string{"publish", "x", "--as", "xml"}, want: "must be text, json or binary"},
		{name: "publish what is not JSON", args: []string{"publish", "{", "--as", "json"}, want: "is not JSON"},
		{name: "publish a line that is not JSON", stdin: "{}\n{\n", args: []string{"publish", "--lines", "--as", "json"}, want: "line 2: not valid JSON"},
		{name: "publish lines and an argument", args: []string{"publish", "x", "--lines"}, want: "cannot be combined with an argument"},
		{name: "kick without an ID", args: []string{"kick"}, want: "specify a connection ID"},
		{name: "kick an empty ID", args: []string{"kick", ""}, want: "specify a connection ID"},
		{name: "kick what is not an ID", args: []string{"kick", "x"}, want: "is not the ID"},
		{name: "kick a connection that is not there", args: []string{"kick", "c99"}, want: "no such connection"},
		{name: "kick with a code of the protocol", args: []string{"kick", "c1", "--code", "1000"}, want: "must be 4000 to 4999"},
		{name: "subscribe nobody", args: []string{"subscribe", "vip"}, want: "specify a connection ID or --user"},
		{name: "subscribe twice over", args: []string{"subscribe", "vip", "c1", "--user", "ann"}, want: "specify a connection ID or --user"},
		{name: "subscribe to a wrong channel", args: []string{"subscribe", "a\x01", "c1"}, want: "control character"},
		{name: "unsubscribe a connection that is not there", args: []string{"unsubscribe", "vip", "c99"}, want: "no such connection"},
		{name: "tail a wrong channel", args: []string{"tail", "a\x01"}, want: "control character"},
		{name: "bench what is not a URL", args: []string{"bench", "localhost"}, want: "is not the URL of a route"},
		{name: "ui on all addresses", args: []string{"ui", "--listen", "0.0.0.0:0"}, want: "must be a loopback address"},
		{name: "a command that does not exist", args: []string{"pubish", "x"}, want: `has no command "pubish": did you mean publish?`},
		{name: "a command that is like no other", args: []string{"frobnicate"}, want: `has no command "frobnicate": see caddy broadcast --help`},
		{name: "publish nothing", args: []string{"publish"}, want: "to publish an empty message, add --empty"},
		{name: "publish an empty argument", args: []string{"publish", ""}, want: "to publish an empty message, add --empty"},
		{name: "bench a route that does not let clients publish", args: []string{"bench", "http://" + s.Addr + "/quiet", "--connections", "1"}, want: "with code 1008 (publishing is off): the route does not let this client publish; publish through the admin API with --admin"},
		{name: "bench a route that rejects", args: []string{"bench", "http://" + s.Addr + "/bad"}, want: "400 Bad Request (the channel"},
		{name: "bench what is not a route", args: []string{"bench", "http://" + s.Addr + "/none"}, want: "the handshake got the response 200"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if out, good := s.run(t, c.stdin, c.args...); good || !strings.Contains(out, c.want) {
				t.Errorf("%q: %v %q lacks %q", c.args, good, out, c.want)
			}
		})
	}
}

// TestNoAdminAPI: a command that does not reach the admin API, or whose Caddy has nothing of ours, says what to do.
func TestNoAdminAPI(t *testing.T) {
	s := startForCommands(t)
	other := commandLine{s.In(t)}
	other.Admin = caddytest.FreeAddr(t)
	if out, good := other.run(t, "", "status"); good || !strings.Contains(out, "no admin API of Caddy at "+other.Admin) || !strings.Contains(out, "start Caddy, or say where its admin API is") {
		t.Errorf("status: %v %s", good, out)
	}
	if err := s.Load("respond hello"); err != nil {
		t.Fatal(err)
	}
	if out, good := s.run(t, "", "status"); good || !strings.Contains(out, "broadcast status: nothing in the running configuration uses broadcast\n") {
		t.Errorf("status: %v %s", good, out)
	}
}
