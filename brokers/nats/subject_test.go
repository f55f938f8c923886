package nats

import (
	"strconv"
	"strings"
	"testing"

	natsgo "github.com/nats-io/nats.go"
)

func TestSubjects(t *testing.T) {
	for channel, want := range map[string]string{
		"news":            "news",
		"room:1@a,b~c-d_": "room:1@a,b~c-d_",
		"a.b":             "a=2Eb",
		"*":               "=2A",
		">":               "=3E",
		"=2E":             "=3D2E",
		"_tick":           "=5Ftick",
		"_":               "=5F",
		"a b":             "a=20b",
		"ü":               "=C3=BC",
		"$SYS":            "=24SYS",
		"a/b":             "a=2Fb",
	} {
		if got := encodeChannel(channel); got != want {
			t.Errorf("%q: %q, want %q", channel, got, want)
		}
	}
	for c := range 256 {
		for _, channel := range []string{string([]byte{byte(c)}), "x" + string([]byte{byte(c)}), strings.Repeat(string([]byte{byte(c)}), 255)} {
			token := encodeChannel(channel)
			if got, ok := decodeChannel(token); !ok || got != channel {
				t.Errorf("%q: %q, %q, %v", channel, token, got, ok)
			}
		}
	}
	for _, token := range []string{"", "_tick", "=", "a=2", "=2e", "=41", "a=5F", "a.b", "a b", "*", "=GG"} {
		if got, ok := decodeChannel(token); ok {
			t.Errorf("%q is %q", token, got)
		}
	}
}

// Each channel has one subject, and each subject is of one channel.
func FuzzSubject(f *testing.F) {
	for _, s := range []string{"news", "a.b", "=2E", "_tick", "ü", "a=5F"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if s != "" {
			token := encodeChannel(s)
			if got, ok := decodeChannel(token); !ok || got != s {
				t.Fatalf("%q: %q, %q, %v", s, token, got, ok)
			}
			if strings.ContainsAny(token, ".*> \r\n\t$") || token[0] == '_' {
				t.Fatalf("%q is %q", s, token)
			}
		}
		if channel, ok := decodeChannel(s); ok && encodeChannel(channel) != s {
			t.Fatalf("%q and %q are both %q", s, encodeChannel(channel), channel)
		}
	})
}

// FuzzCounted: others may publish on the subjects of counts too.
func FuzzCounted(f *testing.F) {
	f.Add("bc.n.a.1z", []byte("12"))
	f.Add("bc.n._all.0", []byte("-1"))
	f.Add("bc.n.", []byte(""))
	f.Fuzz(func(t *testing.T, subject string, data []byte) {
		c := &counts{subject: "bc.n."}
		m := &natsgo.Msg{Header: natsgo.Header{"Nats-Subject": {subject}}, Data: data}
		token, node, number, ok := c.parse(m)
		if !ok {
			return
		}
		m = &natsgo.Msg{Header: natsgo.Header{"Nats-Subject": {c.subject + token + "." + peerName(node)}}, Data: []byte(strconv.Itoa(number))}
		if again, on, count, ok := c.parse(m); !ok || again != token || on != node || count != number {
			t.Errorf("%q is %q, %d, %d and then %q, %d, %d", subject, token, node, number, again, on, count)
		}
	})
}
