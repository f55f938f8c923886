package resp

import (
	"bufio"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"go.uber.org/zap"
)

// realClients are programs that publish. Each is run without a password, with one, and with a wrong one. With the environment
// variable RECORD=1 what they send is written to testdata, and TestRecorded sends it where they are not installed. Those of npm
// are looked for in NODE_PATH: npm install redis@5 ioredis@5 redis6@npm:redis@6 ioredis6@npm:ioredis@6
var realClients = []struct {
	name    string
	command []string
	probe   []string // succeeds where the program is installed
	shows   string   // what it prints
	wrong   string   // what it prints with a wrong password
}{
	{"redispy", []string{"/usr/bin/python3", "testdata/redispy.py"}, []string{"/usr/bin/python3", "-c", "import redis"},
		"True 0 0\n[0, 0]\n[0, 0]\nsubscribe\n1 b'e'\npong\nunsubscribe\nunknown command 'GET', with args beginning with: 'x' \n",
		wrongPass},
	{"ioredis", []string{"node", "testdata/ioredis.js", "URL", "ioredis"}, []string{"node", "-e", "require('ioredis')"}, ioredisShows, wrongPass},
	{"ioredis6", []string{"node", "testdata/ioredis.js", "URL", "ioredis6"}, []string{"node", "-e", "require('ioredis6')"}, ioredisShows, wrongPass},
	{"noderedis", []string{"node", "testdata/noderedis.js", "URL", "redis", "2"}, []string{"node", "-e", "require('redis')"}, nodeRedisShows, wrongPass},
	{"noderedis-resp3", []string{"node", "testdata/noderedis.js", "URL", "redis", "3"}, []string{"node", "-e", "require('redis')"}, nodeRedisShows, wrongPass},
	{"noderedis6", []string{"node", "testdata/noderedis.js", "URL", "redis6", "3"}, []string{"node", "-e", "require('redis6')"}, nodeRedisShows, wrongPass},
}

const (
	ioredisShows = "PONG 0 0\n[[null,0],[null,0]]\n[[null,0],[null,0]]\n1\n1 room,e\n0\n" +
		"ERR unknown command 'get', with args beginning with: 'x' \n"
	nodeRedisShows = "PONG 0 0\n[ 0, 0 ]\n[ 0, 0 ]\nsubscribed\nroom,e\nERR unknown command 'GET', with args beginning with: 'x' \n"
)

// Real clients work.
func TestRealClients(t *testing.T) {
	for _, row := range realClients {
		t.Run(row.name, func(t *testing.T) {
			if err := exec.Command(row.probe[0], row.probe[1:]...).Run(); err != nil {
				t.Skip("not installed: ", row.probe)
			}
			for _, login := range []struct{ name, password, shows string }{
				{"", "", row.shows}, {"password", "se:cret", row.shows}, {"wrong", "x", row.wrong},
			} {
				t.Run(login.name, func(t *testing.T) {
					r := newRecorder()
					tape, addr := record(t, Config{Publisher: r, Password: passwordOf(login.name)})
					u := url.URL{Scheme: "redis", Host: addr, Path: "/1"}
					if login.password != "" {
						u.User = url.UserPassword("default", login.password)
					}
					command := slices.Clone(row.command)
					if i := slices.Index(command, "URL"); i >= 0 {
						command[i] = u.String()
					} else {
						command = append(command, u.String())
					}
					out, err := exec.CommandContext(t.Context(), command[0], command[1:]...).CombinedOutput()
					if got := string(out); err != nil || strings.TrimSpace(got) != strings.TrimSpace(login.shows) {
						t.Errorf("it says (%v):\n%s\nnot:\n%s", err, got, login.shows)
					}
					if login.name != "wrong" {
						checkPublished(t, r)
					}
					if os.Getenv("RECORD") != "" && !t.Failed() {
						tape.write(t, recordingName(row.name, login.name))
					}
				})
			}
		})
	}
}

// passwordOf is what the server of a recording has.
func passwordOf(name string) string {
	if name == "" {
		return ""
	}
	return "se:cret"
}

func recordingName(client, login string) string {
	return filepath.Join("testdata", strings.TrimSuffix(client+"-"+login, "-")+".txt")
}

// checkPublished checks what a client has published.
func checkPublished(t *testing.T, r *recorder) {
	t.Helper()
	want := []string{"text", "\x00\xff\r\n", "a", "b", "c", "d", "e"}
	got := r.wait(t, len(want))
	for i, p := range want {
		if got[i] != (publication{"room", p}) {
			t.Errorf("publication %d is %q, want %q", i, got[i], p)
		}
	}
}

// What programs send first that cannot be installed here, as socketio.md has seen it. None of the answers is an error that they
// do not tolerate.
func TestSeen(t *testing.T) {
	for _, row := range []struct{ name, send, want string }{
		{"redis-py 5 to 7", array("CLIENT", "SETINFO", "LIB-NAME", "redis-py") + array("CLIENT", "SETINFO", "LIB-VER", "7.4.0") + array("SELECT", "2"), "+OK\r\n+OK\r\n+OK\r\n"},
		{"redis-py 8", array("HELLO", "3", "AUTH", "default", "secret") + array("CLIENT", "MAINT_NOTIFICATIONS", "ON", "moving-endpoint-type", "internal-ip"),
			"%7\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n$5\r\n7.0.0\r\n$5\r\nproto\r\n:3\r\n$2\r\nid\r\n:1\r\n$4\r\nmode\r\n$10\r\nstandalone\r\n" +
				"$4\r\nrole\r\n$6\r\nmaster\r\n$7\r\nmodules\r\n*0\r\n" +
				"-ERR unknown subcommand or wrong number of arguments for 'MAINT_NOTIFICATIONS'. Try CLIENT HELP.\r\n"},
		{"kombu", array("PING") + array("PING") + array("PUBLISH", "/0.socketio", "{}"), "+PONG\r\n+PONG\r\n:0\r\n"},
		{"redis-adapter", array("PSUBSCRIBE", "socket.io#/#*") + array("SUBSCRIBE", "socket.io-request#/#", "socket.io-response#/#"),
			"*3\r\n$10\r\npsubscribe\r\n$13\r\nsocket.io#/#*\r\n:1\r\n*3\r\n$9\r\nsubscribe\r\n$20\r\nsocket.io-request#/#\r\n:2\r\n" +
				"*3\r\n$9\r\nsubscribe\r\n$21\r\nsocket.io-response#/#\r\n:3\r\n"},
	} {
		t.Run(row.name, func(t *testing.T) {
			_, addr := serve(t, Config{Password: passwordIn(row.send)})
			p := dial(t, addr)
			p.send(row.send)
			p.expect(row.want)
		})
	}
}

// passwordIn returns the password that a client sends.
func passwordIn(send string) string {
	if strings.Contains(send, "secret") {
		return "secret"
	}
	return ""
}

// The tools of Redis work too, as far as a publisher needs them.
func TestRedisTools(t *testing.T) {
	r := newRecorder()
	r.n = 2
	_, addr := serve(t, Config{Publisher: r})
	_, port, _ := net.SplitHostPort(addr)
	for _, row := range []struct{ command, shows string }{
		{"redis-cli -p PORT publish room text", "2"},
		{"redis-cli -3 -p PORT publish room text", "2"},
		{"redis-benchmark -p PORT -n 1000 -P 100 -c 2 -q PUBLISH room x", "requests per second"},
	} {
		command := strings.Fields(strings.ReplaceAll(row.command, "PORT", port))
		if _, err := exec.LookPath(command[0]); err != nil {
			t.Skip(err)
		}
		out, err := exec.CommandContext(t.Context(), command[0], command[1:]...).CombinedOutput()
		if err != nil || !strings.Contains(string(out), row.shows) {
			t.Errorf("%s: %v\n%s", row.command, err, out)
		}
	}
	r.wait(t, 1002)
}

// What the clients sent when they were recorded is still answered as it was.
func TestRecorded(t *testing.T) {
	for _, row := range realClients {
		for _, login := range []string{"", "password", "wrong"} {
			name := recordingName(row.name, login)
			t.Run(name, func(t *testing.T) {
				r := newRecorder()
				_, addr := serve(t, Config{Publisher: r, Password: passwordOf(login)})
				for i, c := range read(t, name) {
					p := dial(t, addr)
					p.send(c.sent)
					p.Conn.(*net.TCPConn).CloseWrite()
					if got, want := alone(p.rest()), alone(c.answered); got != want {
						t.Errorf("connection %d got %q\nwant %q", i, got, want)
					}
				}
				if login != "wrong" {
					checkPublished(t, r)
				}
			})
		}
	}
}

// together is what a connection gets because another one is there too.
var together = regexp.MustCompile(`[*>]3\r\n\$7\r\nmessage\r\n\$4\r\nroom\r\n\$1\r\ne\r\n`)

// count is an answer to PUBLISH.
var count = regexp.MustCompile(`:\d\r\n`)

// alone returns what a connection gets without what depends on others: recorded ones overlap, and replayed ones do not.
func alone(answers string) string {
	answers = ids.ReplaceAllString(answers, "$1")
	return count.ReplaceAllString(together.ReplaceAllString(answers, ""), ":n\r\n")
}

// tape is what goes over a server's connections.
type tape struct {
	net.Listener
	mu    sync.Mutex
	conns []*taped
}

type taped struct {
	net.Conn
	tape           *tape
	sent, answered string
}

// record is serve with a tape.
func record(t *testing.T, c Config) (*tape, string) {
	t.Helper()
	c.Log = zap.NewNop()
	s, _ := serve(t, c)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	tape := &tape{Listener: l}
	go s.Serve(tape)
	return tape, l.Addr().String()
}

func (l *tape) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	c := &taped{Conn: nc, tape: l}
	l.conns = append(l.conns, c)
	return c, nil
}

func (c *taped) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.tape.mu.Lock()
	defer c.tape.mu.Unlock()
	c.sent += string(b[:n])
	return n, err
}

func (c *taped) Write(b []byte) (int, error) {
	c.tape.mu.Lock()
	c.answered += string(b)
	c.tape.mu.Unlock()
	return c.Conn.Write(b)
}

// write writes a tape: for each connection a line for each command, with > before it, and one with all answers, with <.
func (l *tape) write(t *testing.T, name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var b strings.Builder
	for _, c := range l.conns {
		var p parser
		for sent := []byte(c.sent); len(sent) > 0; {
			n, err := p.next(sent, &known)
			if n == 0 {
				t.Fatalf("%q: %v", sent, err)
			}
			fmt.Fprintf(&b, "> %q\n", sent[:n])
			sent = sent[n:]
		}
		fmt.Fprintf(&b, "< %q\n", c.answered)
		b.WriteByte('\n')
	}
	if err := os.WriteFile(name, []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}

// read reads what write wrote.
func read(t testing.TB, name string) (conns []taped) {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var c taped
	for lines := bufio.NewScanner(f); lines.Scan(); {
		line := lines.Text()
		if line == "" {
			conns, c = append(conns, c), taped{}
			continue
		}
		text, err := strconv.Unquote(line[2:])
		if err != nil {
			t.Fatalf("%s: %q: %v", name, line, err)
		}
		if line[0] == '>' {
			c.sent += text
		} else {
			c.answered += text
		}
	}
	return conns
}
