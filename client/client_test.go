package client

import (
	"bytes"
	"compress/gzip"
	"maps"
	"os"
	"regexp"
	"slices"
	"testing"
)

// TestTypes: broadcast.d.ts has the entries, requests and error codes that docs/protocol.md has.
func TestTypes(t *testing.T) {
	names := func(file, pattern string) []string {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		set := make(map[string]bool)
		for _, m := range regexp.MustCompile(pattern).FindAllSubmatch(text, -1) {
			set[string(m[1])] = true
		}
		return slices.Sorted(maps.Keys(set))
	}
	const types, docs = "broadcast.d.ts", "../docs/protocol.md"
	for _, c := range []struct {
		what, inTypes, inDocs string
		n                     int
	}{
		{"entries and requests", `(?m)^\t\| \{ (\w+): `, "[\\[,`]\\{\"(\\w+)\":\\{", 11},
		{"error codes", `(?m)^\t\| "([a-z_]+)"`, "(?m)^\\| `([a-z_]+)` \\|", 9},
	} {
		got, want := names(types, c.inTypes), names(docs, c.inDocs)
		if !slices.Equal(got, want) || len(want) != c.n {
			t.Errorf("%s: %s has %q, %s has %q", c.what, types, got, docs, want)
		}
	}
}

// TestTypesAreDeclared: a page's tsc --strict knows the types that the entries name, from the file itself.
func TestTypesAreDeclared(t *testing.T) {
	text, err := os.ReadFile("broadcast.d.ts")
	if err != nil {
		t.Fatal(err)
	}
	entries := regexp.MustCompile(`(?m)^\t\| \{ \w+: ([A-Z]\w*) \}`).FindAllSubmatch(text, -1)
	if len(entries) < 5 {
		t.Fatalf("%q", entries)
	}
	for _, m := range entries {
		if !regexp.MustCompile(`(?m)^export (interface|type) ` + string(m[1]) + `\b`).Match(text) {
			t.Errorf("%s is declared nowhere", m[1])
		}
	}
}

// TestSize: the module that every page loads stays small, and the one with presence adds little to it. .ci/run checks that they match
// their sources.
func TestSize(t *testing.T) {
	for name, limit := range map[string]struct{ size, gzipped int }{
		"":       {3584, 1945}, // 3.5 and 1.9 KiB
		presence: {4352, 2252}, // 4.25 and 2.2 KiB
	} {
		data := served.modules[address{name: name}].data
		if n := len(data); n > limit.size {
			t.Errorf("%q has %d bytes, more than %d", name, n, limit.size)
		}
		var b bytes.Buffer
		w, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
		if err != nil {
			t.Fatal(err)
		}
		w.Write(data)
		w.Close()
		if n := b.Len(); n > limit.gzipped {
			t.Errorf("%q has %d bytes gzipped, more than %d", name, n, limit.gzipped)
		}
	}
}
