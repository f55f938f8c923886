package command

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// fakeAPI takes messages as the admin API does. Before may answer a request instead, and the connection is cut if it
// says so, after the messages were published.
type fakeAPI struct {
	t      *testing.T
	before func(try int, w http.ResponseWriter, lines []string) (answered, cut bool)
	tries  int
	keys   map[string]bool
	got    []string
}

func (f *fakeAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	if len(body) > 16<<20 {
		http.Error(w, `{"error":"the body is larger than 16777216 bytes"}`, http.StatusRequestEntityTooLarge)
		return
	}
	if r.Header.Get("Content-Type") != "application/x-ndjson" {
		line, _ := json.Marshal(map[string]any{"key": r.Header.Get("Idempotency-Key"), "data": string(body)})
		body = append(line, '\n')
	}
	lines := strings.SplitAfter(string(body), "\n")
	lines = lines[:len(lines)-1]
	f.tries++
	cut := false
	if f.before != nil {
		answered := false
		if answered, cut = f.before(f.tries, w, lines); answered {
			return
		}
	}
	for i, line := range lines {
		var m struct{ Key, Data string }
		if err := json.Unmarshal([]byte(line), &m); err != nil || m.Key == "" {
			f.t.Errorf("%q: %v", line, err)
		}
		if !f.keys[m.Key] {
			f.got = append(f.got, m.Data)
		}
		f.keys[m.Key] = true
		if !cut {
			fmt.Fprintf(w, `{"id":"A-%d","subscribers":1}`+"\n", i)
		}
	}
	if cut {
		panic(http.ErrAbortHandler)
	}
}

// runCommand runs a command of `caddy broadcast` against the API.
func runCommand(t *testing.T, f *fakeAPI, stdin io.Reader, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	f.t, f.keys = t, make(map[string]bool)
	server := httptest.NewServer(f)
	t.Cleanup(server.Close)
	root := &cobra.Command{SilenceErrors: true}
	setUp(root)
	var out, errs bytes.Buffer
	root.SetIn(stdin)
	root.SetOut(&out)
	root.SetErr(&errs)
	root.SetArgs(append(args, "--address", strings.TrimPrefix(server.URL, "http://")))
	err = root.ExecuteContext(context.Background())
	return out.String(), errs.String(), err
}

// TestLinesBounded: what is published with one request is bounded by bytes as well as by lines.
func TestLinesBounded(t *testing.T) {
	line := strings.Repeat("x", 20_000)
	control := strings.Repeat("\x01", maxLine) // six bytes each, in JSON
	input := strings.Repeat(line+"\n", 3000) + strings.Repeat(control+"\n", 3)
	f := new(fakeAPI)
	out, errs, err := runCommand(t, f, strings.NewReader(input), "publish", "--lines")
	if err != nil || errs != "" || len(f.got) != 3003 || strings.Count(out, "\n") != 3003 {
		t.Fatalf("%v; %d of 3003 lines were published; %.300s", err, len(f.got), errs)
	}
	for i, got := range f.got {
		if i < 3000 && got != line || i >= 3000 && got != control {
			t.Fatalf("line %d is another", i+1)
		}
	}
}

// TestLinesBad: a line that cannot be published is reported, and takes no other with it.
func TestLinesBad(t *testing.T) {
	var input, want []string
	for i := range 1500 {
		input = append(input, fmt.Sprintf(`"line %d"`, i+1))
		if i+1 != 501 && i+1 != 1002 {
			want = append(want, fmt.Sprintf("line %d", i+1))
		}
	}
	input[500], input[1001] = "{", `"refused"`
	f := &fakeAPI{before: func(_ int, w http.ResponseWriter, lines []string) (bool, bool) {
		i := slices.IndexFunc(lines, func(l string) bool { return strings.Contains(l, "refused") })
		if i < 0 {
			return false, false
		}
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprintf(w, `{"error":"line %d: has something; nothing was published"}`, i+1)
		return true, false
	}}
	_, errs, err := runCommand(t, f, strings.NewReader(strings.Join(input, "\n")), "publish", "--lines", "--as", "json")
	if err == nil || !strings.Contains(err.Error(), "2 lines were not published") {
		t.Errorf("the error is %v", err)
	}
	if !strings.Contains(errs, "line 501: not valid JSON\n") || !strings.Contains(errs, "line 1002: rejected: has something\n") {
		t.Errorf("it reports %q", errs)
	}
	if !slices.Equal(f.got, want) {
		t.Errorf("%d lines were published, not %d", len(f.got), len(want))
	}

	long := strings.Repeat("x", maxLine+1)
	f = new(fakeAPI)
	_, errs, err = runCommand(t, f, strings.NewReader("a\n"+long+"\n"+long[1:]+"\r\nb\xff\nc"), "publish", "--lines")
	if err == nil || !slices.Equal(f.got, []string{"a", long[1:], "c"}) {
		t.Errorf("%v: %d lines were published", err, len(f.got))
	}
	if errs != "line 2: longer than 1048576 bytes\nline 4: not valid UTF-8\n" {
		t.Errorf("it reports %q", errs)
	}
}

// TestPublishAgain: what has no answer, or no room, is published again, and once.
func TestPublishAgain(t *testing.T) {
	for _, args := range [][]string{{"publish", "--lines"}, {"publish", "hello"}} {
		f := &fakeAPI{before: func(try int, w http.ResponseWriter, _ []string) (bool, bool) {
			if try == 1 {
				w.Header().Set("Retry-After", "1")
				http.Error(w, `{"error":"full"}`, http.StatusServiceUnavailable)
			}
			return try == 1, try < 4
		}}
		out, errs, err := runCommand(t, f, strings.NewReader("hello"), args...)
		if err != nil || errs != "" || out != "A-0 to 1\n" || !slices.Equal(f.got, []string{"hello"}) || f.tries != 4 {
			t.Errorf("%q: %v, %q, %q, got %q after %d requests", args, err, out, errs, f.got, f.tries)
		}
	}
}

// TestPublishRefused: what is wrong with all messages is told at once.
func TestPublishRefused(t *testing.T) {
	for _, args := range [][]string{{"publish", "--lines"}, {"publish", "hello"}} {
		f := &fakeAPI{before: func(_ int, w http.ResponseWriter, _ []string) (bool, bool) {
			http.Error(w, `{"error":"nothing in the running configuration uses broadcast"}`, http.StatusNotFound)
			return true, false
		}}
		_, _, err := runCommand(t, f, strings.NewReader("a\nb\nc"), args...)
		if err == nil || !strings.Contains(err.Error(), "nothing in the running") || f.tries != 1 {
			t.Errorf("%q: %v after %d requests", args, err, f.tries)
		}
		f = new(fakeAPI)
		for _, flags := range [][]string{{"--channel", ""}, {"--channel", "a\x01"}, {"--event", "a\x01"}} {
			if _, _, err := runCommand(t, f, strings.NewReader("a"), append(args, flags...)...); err == nil || f.tries > 0 {
				t.Errorf("%q: %v after %d requests", append(args, flags...), err, f.tries)
			}
		}
	}
}

// FuzzReadLine: lines are those of the input, without their ends.
func FuzzReadLine(f *testing.F) {
	f.Add([]byte("a\nb\r\n\n\r\nc"))
	f.Fuzz(func(t *testing.T, input []byte) {
		in := bufio.NewReaderSize(bytes.NewReader(input), 16)
		parts := bytes.Split(input, []byte("\n"))
		for i, part := range parts {
			text, long, err := readLine(in)
			if want := bytes.TrimRight(part, "\r"); !bytes.Equal(text, want) || long || (err == io.EOF) != (i == len(parts)-1) {
				t.Fatalf("line %d is %q, %v, not %q", i, text, err, want)
			}
		}
	})
}
