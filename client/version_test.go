package client

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"testing"
	"testing/fstest"
)

// sealed checks that the files of released versions are those that were released, and that all versions but the newest are
// released. sums is what sha256sum has written.
func sealed(files fs.FS, sums []byte) error {
	released := make(map[string]bool)
	lines := bufio.NewScanner(bytes.NewReader(sums))
	for lines.Scan() {
		sum, name, ok := strings.Cut(lines.Text(), "  ")
		if !ok {
			return fmt.Errorf("SHA256SUMS has the line %q", lines.Text())
		}
		data, err := fs.ReadFile(files, "versions/"+name)
		if err != nil {
			return fmt.Errorf("a released file is missing: %w", err)
		}
		if got := sha256.Sum256(data); hex.EncodeToString(got[:]) != sum {
			return fmt.Errorf("%s is in a release, and has changed: begin the next version (see CONTRIBUTING.md, Release)", name)
		}
		released[name] = true
	}
	names, err := fs.Glob(files, "versions/*/*.min.js")
	for _, name := range names {
		name = strings.TrimPrefix(name, "versions/")
		if !strings.HasPrefix(name, fmt.Sprint(load(files).newest, "/")) && !released[name] {
			return fmt.Errorf("%s is not the newest version, and SHA256SUMS does not have it", name)
		}
	}
	return err
}

// TestReleasedVersions: pages keep a version of the client for a year, so no file of a released version ever changes.
func TestReleasedVersions(t *testing.T) {
	sums, err := os.ReadFile("versions/SHA256SUMS")
	if err != nil {
		t.Fatal(err)
	}
	if err := sealed(os.DirFS("."), sums); err != nil {
		t.Error(err)
	}
}

// TestSealed: the check finds what it is for.
func TestSealed(t *testing.T) {
	file := func(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }
	files := fstest.MapFS{"versions/1/broadcast.min.js": file("one"), "versions/2/broadcast.min.js": file("two")}
	line := func(name, text string) string { return fmt.Sprintf("%x  %s\n", sha256.Sum256([]byte(text)), name) }
	for name, c := range map[string]struct{ sums, want string }{
		"released":         {line("1/broadcast.min.js", "one"), ""},
		"all released":     {line("1/broadcast.min.js", "one") + line("2/broadcast.min.js", "two"), ""},
		"changed":          {line("1/broadcast.min.js", "ONE"), "has changed"},
		"newest changed":   {line("1/broadcast.min.js", "one") + line("2/broadcast.min.js", "2"), "has changed"},
		"removed":          {line("1/broadcast.min.js", "one") + line("1/presence.min.js", "p"), "missing"},
		"not sealed":       {"", "does not have it"},
		"not a line of it": {"x", "has the line"},
	} {
		t.Run(name, func(t *testing.T) {
			err := sealed(files, []byte(c.sums))
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("%v, not %q", err, c.want)
			}
		})
	}
}

// TestParse: which queries are for the client, and which are left to the page that has the route's path.
func TestParse(t *testing.T) {
	for query, want := range map[string]address{
		"client":              {},
		"client=1":            {version: "1"},
		"client=01":           {version: "01"},
		"client=77":           {version: "77"},
		"client=presence":     {name: presence},
		"client=presence@1":   {presence, "1"},
		"client=presence%401": {presence, "1"}, // as URLSearchParams writes it
		"client=presence@x":   {presence, "x"},
	} {
		if got, ok := parse(query); !ok || got != want {
			t.Errorf("%s: %v %v", query, ok, got)
		}
	}
	for _, query := range []string{
		"", "client=", "client=ann", "client=ann@example.com", "client=7up", "client=10.0.0.1", "client=-1", "client=presence@", "client=presence2",
		"client&x", "x&client", "client=1&x=2", "client=%zz", "Client", "clients=1",
	} {
		if got, ok := parse(query); ok {
			t.Errorf("%s: %v", query, got)
		}
	}
}

// TestOlderVersions: all versions are served, and an address without one has the newest.
func TestOlderVersions(t *testing.T) {
	files := fstest.MapFS{}
	for _, name := range []string{"1/broadcast", "2/broadcast", "2/presence", "10/broadcast", "10/presence"} {
		files["versions/"+name+".min.js"] = &fstest.MapFile{Data: []byte(name)}
	}
	all := load(files)
	for a, want := range map[address]string{
		{}: "10/broadcast", {version: "1"}: "1/broadcast", {version: "2"}: "2/broadcast", {version: "3"}: "",
		{name: presence}: "10/presence", {presence, "2"}: "2/presence", {presence, "1"}: "",
	} {
		if got := string(all.modules[a].data); got != want {
			t.Errorf("%+v: %q", a, got)
		}
	}
	if all.newest != 10 {
		t.Errorf("the newest is %d", all.newest)
	}
	if got := all.has(presence); got != "?client=presence@2, ?client=presence@10, and the newest at ?client=presence" {
		t.Error(got)
	}
}
