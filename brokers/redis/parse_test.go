package redis

import (
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
	"github.com/caddy-broadcast/caddy-broadcast/internal/brokerlog"
	"github.com/caddy-broadcast/caddy-broadcast/internal/redistest"
)

// Whatever comes from the server is taken apart without a panic, and what is taken for a message of a script could be one.
func FuzzMessage(f *testing.F) {
	f.Add("e1 5 1700000000000 data")
	f.Add("K 1700000000000 7 8")
	f.Add("1700000000000 7 r5:1699999999999 c")
	f.Add("5-1700000000000")
	f.Fuzz(func(t *testing.T, text string) {
		if m, ok := parse(text); ok && (!brokerlog.IsEpoch(m.epoch) || m.seq > maxSeq || !strings.HasSuffix(text, " "+m.rest)) {
			t.Errorf("%q is %+v", text, m)
		}
		if seq, _, ok := parseID(text); ok && seq > maxSeq {
			t.Errorf("%q is at %d", text, seq)
		}
		for n := range 4 {
			places, ok := parsePlaces(text, n)
			if !ok {
				continue
			}
			for _, p := range places {
				if p.Seq > maxSeq || p.Seq == 0 && (p.Repeated || p.Time != 0) {
					t.Errorf("%q has %+v", text, p)
				}
			}
		}
		for node, count := range parseCounts(strings.Fields(text)) {
			if count <= 0 {
				t.Errorf("%q: node %d has %d", text, node, count)
			}
		}
	})
}

func TestParsePlaces(t *testing.T) {
	places, ok := parsePlaces("100 7 r5:99 c 8", 4)
	want := []broker.Place{{Seq: 7, Time: 100}, {Seq: 5, Time: 99, Repeated: true}, {}, {Seq: 8, Time: 100}}
	if !ok {
		t.Fatal("not read")
	}
	for i := range want {
		if places[i] != want[i] {
			t.Errorf("place %d is %+v", i, places[i])
		}
	}
	for _, wrong := range []string{"", "100", "100 7", "100 7 8 9", "x 7 8", "100 7 -8", "100 r7 8", "100 7 0"} {
		if _, ok := parsePlaces(wrong, 2); ok {
			t.Errorf("%q is read", wrong)
		}
	}
}

// A position that the scripts cannot count is nobody's, since they count with floating-point numbers.
func TestLargestPosition(t *testing.T) {
	if _, ok := parse("e 9007199254740992 1 x"); !ok {
		t.Error("2^53 is not read")
	}
	if _, ok := parse("e 9007199254740993 1 x"); ok || maxSeq != 1<<53 || math.MaxUint64 <= maxSeq {
		t.Error("2^53+1 is read")
	}
	// They also write it in full.
	s := redistest.Start(t)
	n := dialTest(t, testConfig(t, s.Addr()))
	s.Do("HSET", "{bc:0}:m", "s", "123456789012345")
	if p := n.MustPublish(t, entry("a", "x"), entry("a", "y")); p[1].Seq != 123456789012347 {
		t.Errorf("the position is %d", p[1].Seq)
	}
	es, complete, err := n.Read(t.Context(), "a", 123456789012346, 10, 1000)
	if err != nil || !complete || len(es) != 1 || es[0].Seq != 123456789012347 {
		t.Errorf("Read: %v, %v, %v", es, complete, err)
	}
}

func TestMoved(t *testing.T) {
	for text, want := range map[string]string{
		"127.0.0.1:7001": "127.0.0.1:7001", "[::1]:7001": "[::1]:7001", "::1:7001": "[::1]:7001", ":7001": "r1:7001", "r2.example:7001": "r2.example:7001",
	} {
		if got, ok := moved("MOVED 866 "+text, "r1:6379"); !ok || got != want {
			t.Errorf("MOVED to %s is %q", text, got)
		}
	}
	for _, text := range []string{"", "MOVED", "MOVED 1", "MOVED 1 x", "ERR no"} {
		if got, ok := moved(text, "r1:6379"); ok {
			t.Errorf("%q is %q", text, got)
		}
	}
	if _, ok := movedTo(errors.New("MOVED 1 x:1"), "r1:6379"); ok {
		t.Error("an error that is not the server's is one")
	}
}
