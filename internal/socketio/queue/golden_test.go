package queue

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
)

// testDecoder accepts all forms.
var testDecoder = &Decoder{Channels: []string{"socketio", "flask-socketio"}, Key: "socket.io", Pickle: true, MaxMessage: 1 << 20}

// recorded is a message as a real program published it: see record.py and record.js.
type recorded struct {
	Name, Channel string
	Payload       []byte
}

func readRecorded(t testing.TB, file string) (all []recorded) {
	t.Helper()
	f, err := os.Open("testdata/" + file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for d := json.NewDecoder(f); d.More(); {
		var r recorded
		if err := d.Decode(&r); err != nil {
			t.Fatal(err)
		}
		all = append(all, r)
	}
	return all
}

// show writes a command on one line.
func show(c Command, err error) string {
	if err != nil {
		return "error: " + err.Error()
	}
	if c.Method == Ignore {
		return "ignore"
	}
	var s strings.Builder
	fmt.Fprintf(&s, "%s %s", c.Method, c.Namespace)
	for _, list := range []struct {
		what  string
		names []string
	}{{"rooms", c.Rooms}, {"except", c.Except}, {"change", c.Change}} {
		if len(list.names) > 0 {
			fmt.Fprintf(&s, " %s=%s", list.what, strings.Join(list.names, "|"))
		}
	}
	if c.CloseConnection {
		s.WriteString(" close")
	}
	if c.WantsAck {
		s.WriteString(" ack")
	}
	if c.Method == Emit {
		array := string(c.Array)
		if len(array) > 1000 {
			array = fmt.Sprintf("%s…%d", array[:40], len(array))
		}
		fmt.Fprintf(&s, " %s %d %s", c.Name, c.Arguments, array)
	}
	for _, a := range c.Attachments {
		if len(a) > 100 {
			fmt.Fprintf(&s, " %d bytes", len(a))
		} else {
			fmt.Fprintf(&s, " %q", a)
		}
	}
	return s.String()
}

// TestGolden decodes what real programs published. The wanted commands are in want.txt, one a line.
func TestGolden(t *testing.T) {
	f, err := os.Open("testdata/want.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	want := map[string]string{}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		name, command, _ := strings.Cut(lines.Text(), " => ")
		want[name] = command
	}
	for _, file := range []string{"python.jsonl", "emitter.jsonl"} {
		for _, r := range readRecorded(t, file) {
			t.Run(r.Name, func(t *testing.T) {
				got := show(testDecoder.Decode(r.Channel, r.Payload))
				if w, ok := want[r.Name]; !ok || got != w {
					t.Errorf("got %s => %s\nwant %s", r.Name, got, w)
				}
				checkEvent(t, r.Payload, r.Channel)
			})
		}
	}
}

// checkEvent checks what is true of all events that a payload can be decoded to.
func checkEvent(t testing.TB, payload []byte, channel string) {
	t.Helper()
	c, err := testDecoder.Decode(channel, payload)
	if err != nil {
		if strings.ContainsAny(err.Error(), "\n\r\x00\x1b") || len(err.Error()) > 400 {
			t.Errorf("the error %q is not for a log", err)
		}
		return
	}
	if c.Method == Ignore {
		return
	}
	if c.Namespace == "" || c.Namespace[0] != '/' {
		t.Errorf("the namespace is %q", c.Namespace)
	}
	if c.Method != Emit {
		return
	}
	var array []json.RawMessage
	if err := json.Unmarshal(c.Array, &array); err != nil {
		t.Fatalf("%s: %v", c.Array, err)
	}
	if len(array) != c.Arguments+1 {
		t.Errorf("%d arguments in %s", c.Arguments, c.Array)
	}
	if c.Arguments > 0 && string(array[1]) != string(c.Argument) {
		t.Errorf("the first argument of %s is %s", c.Array, c.Argument)
	}
	size := len(c.Array)
	for _, a := range c.Attachments {
		size += len(a)
	}
	if size > testDecoder.MaxMessage || len(c.Attachments) > maxAttachments {
		t.Errorf("%d bytes, %d attachments", size, len(c.Attachments))
	}
	if len(c.Attachments) > 0 {
		if err := checkPlaceholders(c.Array, len(c.Attachments)); err != nil {
			t.Error(err)
		}
	}
}
