package resp

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"reflect"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
)

// parsed feeds bytes in pieces of a size, and returns the commands, and the error if there is one.
func parsed(b []byte, piece int, l *limits) (commands [][]string, err error) {
	var p parser
	var in []byte
	for len(b) > 0 || len(in) > 0 {
		n := min(piece, len(b))
		in, b = append(in, b[:n]...), b[n:]
		size, err := p.next(in, l)
		for ; size > 0 && err == nil; size, err = p.next(in, l) {
			var words []string
			for _, a := range p.args {
				words = append(words, string(in[a.from:a.to]))
			}
			if words != nil {
				commands = append(commands, words)
			}
			in = append([]byte(nil), in[size:]...)
		}
		if err != nil {
			return commands, err
		}
		if len(b) == 0 {
			return commands, nil
		}
	}
	return commands, nil
}

// However the bytes are cut, the commands are the same.
func TestParseInPieces(t *testing.T) {
	text := array("PUBLISH", "a", "b\r\nc") + "PING\r\n" + array("") + "*0\r\n" + "  \r\necho \"a b\" 'c'\n" + array("x", strings.Repeat("y", 300))
	want := [][]string{{"PUBLISH", "a", "b\r\nc"}, {"PING"}, {""}, {"echo", "a b", "c"}, {"x", strings.Repeat("y", 300)}}
	for piece := 1; piece <= len(text); piece++ {
		got, err := parsed([]byte(text), piece, &known)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("in pieces of %d: %q, %v", piece, got, err)
		}
	}
}

// What is too long or wrong is refused as soon as that is known, and not when it has come.
func TestParseBad(t *testing.T) {
	for _, row := range []struct {
		name, send, want string
		limits           *limits
	}{
		{"most arguments", "*1024\r\n", "", &known},
		{"too many arguments", "*1025\r\n", "invalid multibulk length", &known},
		{"a number with no end", "*" + strings.Repeat("0", maxNumber), "invalid multibulk length", &known},
		{"a number that is too large", "*99999999999999999999", "invalid multibulk length", &known},
		{"no number", "*\r\n", "invalid multibulk length", &known},
		{"only a sign", "*-\r\n", "invalid multibulk length", &known},
		{"CR without LF", "*1\rx", "invalid multibulk length", &known},
		{"the longest argument", fmt.Sprintf("*1\r\n$%d\r\n", maxBulk), "", &known},
		{"too long an argument", fmt.Sprintf("*1\r\n$%d\r\n", maxBulk+1), "invalid bulk length", &known},
		{"arguments that are long together", fmt.Sprintf("*2\r\n$%d\r\n%s\r\n$70000\r\n", maxBulk, strings.Repeat("x", maxBulk)), "invalid bulk length", &known},
		{"too little behind an argument", "*1\r\n$1\r\nxyz", "expected CRLF after a bulk string", &known},
		{"the longest line", strings.Repeat("x", maxLine) + "\n", "", &known},
		{"TLS", "\x16\x03\x01\x00\nPUBLISH a b\r\n", "it is not encrypted here", &known},
		{"too long a line", strings.Repeat("x", maxLine+1), "too big inline request", &known},
		{"too many words", strings.Repeat("x ", 1025) + "\n", "invalid multibulk length", &known},
		{"too many arguments of a stranger", "*17\r\n", "unauthenticated multibulk length", &stranger},
		{"too many words of a stranger", strings.Repeat("x ", 17) + "\n", "unauthenticated multibulk length", &stranger},
		{"too long an argument of a stranger", "*1\r\n$4097\r\n", "unauthenticated bulk length", &stranger},
		{"too long a line of a stranger", strings.Repeat("x", 4097), "too big inline request", &stranger},
	} {
		t.Run(row.name, func(t *testing.T) {
			for _, piece := range []int{1000, len(row.send)} {
				_, err := parsed([]byte(row.send), piece, row.limits)
				if got := fmt.Sprint(err); got != row.want && (err != nil || row.want != "") {
					t.Errorf("in pieces of %d: %v, want %q", piece, err, row.want)
				}
			}
		})
	}
}

// FuzzParse: bytes cannot make it panic, and how they are cut does not matter.
func FuzzParse(f *testing.F) {
	for _, row := range asRedis {
		f.Add([]byte(row.send), 3)
	}
	f.Fuzz(func(t *testing.T, b []byte, piece int) {
		if piece < 1 || len(b) > 10_000 {
			return
		}
		whole, err := parsed(bytes.Clone(b), max(len(b), 1), &known)
		cut, cutErr := parsed(bytes.Clone(b), piece, &known)
		if !reflect.DeepEqual(whole, cut) || fmt.Sprint(err) != fmt.Sprint(cutErr) {
			t.Errorf("whole %q, %v; in pieces of %d %q, %v", whole, err, piece, cut, cutErr)
		}
	})
}

// FuzzConn: whatever a client sends, and however that is cut, it gets the same answers, and none is kept back for more than is
// bounded.
func FuzzConn(f *testing.F) {
	for _, row := range asRedis {
		f.Add([]byte(row.send), 3, false)
	}
	for _, row := range asRedisWithPassword {
		f.Add([]byte(row.send), 7, true)
	}
	for _, row := range realClients {
		for _, login := range []string{"", "password", "wrong"} {
			for _, c := range read(f, recordingName(row.name, login)) {
				f.Add([]byte(c.sent), 50, login != "")
			}
		}
	}
	f.Fuzz(func(t *testing.T, b []byte, piece int, password bool) {
		if piece < 1 || len(b) > 10_000 {
			return
		}
		config := Config{Publisher: discard, Log: zap.NewNop()}
		if password {
			config.Password = "secret"
		}
		answers := func(piece int) string {
			s := &sent{rest: b, piece: piece}
			newConn(New(config), s, 1, !password).serve()
			if s.longest > maxReplies+20_000 {
				t.Errorf("%d bytes of answers were kept", s.longest)
			}
			return s.answers.String()
		}
		if whole, cut := answers(max(len(b), 1)), answers(piece); whole != cut {
			t.Errorf("whole %q, in pieces of %d %q", whole, piece, cut)
		}
	})
}

// sent is a connection of a client that sends bytes in pieces of a size.
type sent struct {
	net.Conn
	rest    []byte
	piece   int
	answers bytes.Buffer
	longest int
}

func (s *sent) Read(b []byte) (int, error) {
	if len(s.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(b, s.rest[:min(s.piece, len(s.rest))])
	s.rest = s.rest[n:]
	return n, nil
}

func (s *sent) Write(b []byte) (int, error) {
	s.longest = max(s.longest, len(b))
	return s.answers.Write(b)
}

func (s *sent) Close() error                     { return nil }
func (s *sent) SetReadDeadline(time.Time) error  { return nil }
func (s *sent) SetWriteDeadline(time.Time) error { return nil }
func (s *sent) RemoteAddr() net.Addr             { return new(net.TCPAddr) }

func TestMatches(t *testing.T) {
	for _, row := range []struct {
		pattern, name string
		want          bool
	}{
		{"", "", true}, {"", "a", false}, {"a", "a", true}, {"a", "ab", false}, {"*", "", true}, {"*", "abc", true},
		{"a*c", "abbc", true}, {"a*c", "abcd", false}, {"a**c*", "acx", true}, {"?", "a", true}, {"?", "", false},
		{"socket.io#*", "socket.io#/#room#", true}, {"[a-c]", "b", true}, {"[c-a]", "b", true}, {"[^a-c]", "b", false},
		{"[^a]", "b", true}, {"[]", "a", false}, {"[^]", "a", true}, {`[\]]`, "]", true}, {`\*`, "*", true}, {`\*`, "a", false},
		{"[ab", "b", true}, {"h[ae]llo", "hello", true}, {`a\`, `a\`, true}, {"[", "[", false}, {"/*.socketio", "/0.socketio", true},
		{strings.Repeat("a*", 100) + "b", strings.Repeat("a", 255), false},
	} {
		if got := matches(row.pattern, []byte(row.name)); got != row.want {
			t.Errorf("matches(%q, %q) is %v", row.pattern, row.name, got)
		}
	}
}

func TestNeedsPassword(t *testing.T) {
	for _, row := range []struct {
		network, host string
		want          bool
	}{
		{"tcp", "127.0.0.1", false}, {"tcp", "127.9.9.9", false}, {"tcp4", "127.0.0.1", false}, {"", "::1", false}, {"tcp6", "[::1]", false},
		{"tcp", "localhost", false}, {"tcp", "LocalHost.", false}, {"tcp", "::ffff:127.0.0.1", false}, {"unix", "/run/x", false},
		{"tcp", "", true}, {"tcp", "0.0.0.0", true}, {"tcp", "::", true}, {"tcp", "10.0.0.1", true}, {"tcp", "example.com", true},
		{"tcp", "localhost.example.com", true}, {"fd", "3", true}, {"udp", "127.0.0.1", true}, {"tcp", "127.0.0.1.example.com", true},
	} {
		if got := NeedsPassword(row.network, row.host); got != row.want {
			t.Errorf("NeedsPassword(%q, %q) is %v", row.network, row.host, got)
		}
	}
}
