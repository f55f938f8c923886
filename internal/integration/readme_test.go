package integration

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// readmeBlocks returns the Caddyfiles in a section of README.md.
func readmeBlocks(t *testing.T, heading string) (blocks []string) {
	t.Helper()
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(readme), "\n## "+heading+"\n")
	if !ok {
		t.Fatalf("README.md has no section %q", heading)
	}
	section, _, _ = strings.Cut(section, "\n## ")
	for _, m := range regexp.MustCompile("(?s)\n```\n(.*?)\n```\n").FindAllStringSubmatch(section, -1) {
		blocks = append(blocks, m[1]+"\n")
	}
	return blocks
}

// TestReadmeStreams: Caddy takes the Caddyfiles of README.md for events, responses and logs.
func TestReadmeStreams(t *testing.T) {
	blocks := readmeBlocks(t, "Events, responses and logs")
	if len(blocks) != 3 {
		t.Fatalf("%d Caddyfiles", len(blocks))
	}
	// The printed hash is cut short.
	blocks[2] = strings.Replace(blocks[2], "$2a$14$...", "$2a$14$Zkx19XLiW6VYouLHR5NmfOFU0z2GTNmpkT/5qqR7hx4IjWJPDhjvG", 1)
	validateCaddyfiles(t, blocks)
}
