package manual

import (
	"strings"
	"testing"
)

// TestIndex: docs/README.md leads to each page of docs.
func TestIndex(t *testing.T) {
	index := read(t, "docs/README.md")
	for _, page := range pages(t) {
		name := strings.TrimPrefix(page, "docs/")
		if name != "README.md" && !strings.Contains(index, "("+name+")") {
			t.Errorf("docs/README.md has no link to %s", name)
		}
	}
}

// TestLength: README.md is an overview, and the reference is in docs.
func TestLength(t *testing.T) {
	if n := strings.Count(read(t, "README.md"), "\n"); n >= 300 {
		t.Errorf("README.md has %d lines", n)
	}
}
