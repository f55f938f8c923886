package oracle

import (
	"fmt"
	"strings"
	"testing"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
	"github.com/caddy-broadcast/caddy-broadcast/broker/brokertest"
)

// history returns a log: a1 a2 b3 a4 in epoch mx1, of which a4 was lost, and a4' in epoch mx2.
func history() []brokertest.Stored {
	e := func(seq uint64, channel, data string) broker.Entry {
		return broker.Entry{Seq: seq, Channel: channel, Data: []byte(data)}
	}
	first := []broker.Entry{e(1, "a", "1"), e(2, "a", "2"), e(3, "b", "3"), e(4, "a", "4")}
	return []brokertest.Stored{{Epoch: "mx1", Entries: first}, {Epoch: "mx2", Entries: []broker.Entry{first[0], first[1], first[2], e(4, "a", "new")}}}
}

// A transcript is accepted or not. Each of those that are not breaks one rule.
func TestCheck(t *testing.T) {
	log, wrong := NewLog(history())
	if len(wrong) > 0 {
		t.Fatal(wrong)
	}
	const end = "gap * mx2-3\nmessage a mx2-4 new\n"
	for _, row := range []struct{ name, lastID, transcript, want string }{
		{"all", "", "hello mx1-0 mx1-0 \nmessage a mx1-1 1\nmessage a mx1-2 2\nmessage a mx1-4 4\n" + end, ""},
		{"later", "", "hello mx1-2 mx1-3 \nmessage a mx1-4 4\n" + end, ""},
		{"before its position", "mx1-1", "hello mx1-3 mx1-3 \nmessage a mx1-2 2\nmessage a mx1-4 4\n" + end, "after 3"},
		{"a gap", "mx1-1", "hello mx1-3 mx1-3 a\nmessage a mx1-4 4\n" + end, ""},
		{"closed", "", "hello mx1-0 mx1-0 \nclosed restart\n", ""},
		{"missing", "", "hello mx1-0 mx1-0 \nmessage a mx1-2 2\n", "misses mx1-1"},
		{"missing at the end", "", "hello mx2-3 mx2-3 \n", "misses mx2-4"},
		{"twice", "", "hello mx1-0 mx1-0 \nmessage a mx1-1 1\nmessage a mx1-1 1\n", "after 1"},
		{"out of order", "", "hello mx1-1 mx1-1 \nmessage a mx1-4 4\nmessage a mx1-2 2\n", "misses mx1-2"},
		{"other data", "", "hello mx1-0 mx1-0 \nmessage a mx1-1 2\n", "got 2 of a as mx1-1"},
		{"another channel", "", "hello mx1-2 mx1-2 \nmessage b mx1-3 3\n", "which it is not on"},
		{"no gap of an epoch", "", "hello mx1-3 mx1-3 \nmessage a mx2-4 new\n", "no gap of a when epoch mx2"},
		{"back", "", "hello mx2-0 mx2-0 \ngap * mx2-0\nmessage a mx1-1 1\n", "went back"},
		{"ahead of the log", "", "hello mx1-3 mx1-2 \nclosed restart\n", "was given mx1-3 when the log was at mx1-2"},
		{"behind", "mx1-3", "hello mx1-2 mx1-3 \n", "came with mx1-3"},
		{"another epoch", "mx1-3", "hello mx2-3 mx2-3 \n", "told of no gap"},
	} {
		got := strings.Join(log.Check(Connection{Name: "it", Channels: []string{"a"}, LastID: row.lastID, Transcript: row.transcript}), "\n")
		if row.want == "" && got != "" || !strings.Contains(got, row.want) {
			t.Errorf("%s: %q, and not %q", row.name, got, row.want)
		}
	}
}

func TestPosition(t *testing.T) {
	for transcript, want := range map[string]string{
		"": "x-9", "hello x-1 x-1 \n": "x-1", "hello x-1 x-1 \nmessage a x-2 d\ngap a x-3\n": "x-2",
	} {
		if got := Position("x-9", transcript); got != want {
			t.Errorf("%q: %s", transcript, got)
		}
	}
}

func TestLog(t *testing.T) {
	twice := history()
	twice[0].Entries[1] = broker.Entry{Seq: 1, Channel: "a", Data: []byte("1")}
	if _, wrong := NewLog(twice); len(wrong) != 2 {
		t.Errorf("%q", wrong)
	}
	log, _ := NewLog(history())
	for _, row := range []struct {
		m    Published
		want string
	}{
		{Published{Channel: "a", Data: "2", Answers: []Answer{{ID: "mx1-2"}}}, ""},
		{Published{Channel: "a", Data: "2", Answers: []Answer{{ID: "mx1-1"}}}, "where it is not"},
		{Published{Channel: "a", Data: "2", Answers: []Answer{{Err: broker.ErrDown}}}, "but its publisher"},
		{Published{Channel: "a", Data: "2", Answers: []Answer{{Err: broker.ErrUnknown}}}, ""},
		{Published{Channel: "a", Data: "2", Keyed: true, Answers: []Answer{{Err: broker.ErrDown}}}, ""},
		{Published{Channel: "a", Data: "none", Answers: []Answer{{Err: broker.ErrDown}}}, ""},
		{Published{Channel: "a", Data: "none", Answers: []Answer{{Err: broker.ErrTooBig}}}, "answered with"},
	} {
		if got := fmt.Sprint(log.CheckPublished(row.m)); row.want == "" && got != "[]" || !strings.Contains(got, row.want) {
			t.Errorf("%+v: %s, and not %q", row.m, got, row.want)
		}
	}
}

// TestEmits: the messages of one emit count as one to whoever is on several of its channels.
func TestEmits(t *testing.T) {
	rooms := []string{"a", "b"}
	data := [...]string{Emit("e", rooms, "a"), Emit("e", rooms, "b")}
	e := func(seq uint64, channel, data string) broker.Entry {
		return broker.Entry{Seq: seq, Channel: channel, Data: []byte(data)}
	}
	log, wrong := NewLog([]brokertest.Stored{{Epoch: "mx1", Entries: []broker.Entry{e(1, "a", data[0]), e(2, "b", data[1]), e(3, "b", "3")}}})
	if len(wrong) > 0 {
		t.Fatal(wrong)
	}
	one, two, end := "message a mx1-1 "+data[0]+"\n", "message b mx1-2 "+data[1]+"\n", "message b mx1-3 3\n"
	for _, row := range []struct {
		channels         []string
		all              bool
		transcript, want string
	}{
		{rooms, false, one + end, ""},
		{rooms, false, one + two + end, "twice"},
		{rooms, false, end, "misses mx1-1"},
		{rooms, true, one + two + end, ""},
		{rooms, true, one + end, "misses mx1-2"},
		{rooms[1:], false, two + end, ""},
		{rooms[1:], false, end, "misses mx1-2"},
	} {
		c := Connection{Name: "it", Channels: row.channels, All: row.all, Transcript: "hello mx1-0 mx1-0 \n" + row.transcript}
		if got := strings.Join(log.Check(c), "\n"); row.want == "" && got != "" || !strings.Contains(got, row.want) {
			t.Errorf("%q: %q, and not %q", row.transcript, got, row.want)
		}
	}
}
