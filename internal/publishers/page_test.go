// Package publishers runs the code of docs/publishers.md and docs/vite.md as it is printed there.
package publishers

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	_ "github.com/caddy-broadcast/caddy-broadcast"
	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
)

// TestMain keeps Caddy's files out of the home directory.
func TestMain(m *testing.M) { os.Exit(caddytest.Main(m)) }

// page returns a page of the documentation.
func page(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile("../../docs/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// section returns the part of a page below a heading.
func section(t *testing.T, text, heading string) string {
	t.Helper()
	_, below, ok := strings.Cut(text, "\n## "+heading+"\n")
	if !ok {
		t.Fatalf("there is no section %q", heading)
	}
	below, _, _ = strings.Cut(below, "\n## ")
	return below
}

// file is a block of code whose paragraph begins with the file's name.
var file = regexp.MustCompile("(?m)^`([^`\\n]+)`.*\n(?:.+\n)*\n```\\w+\n((?s:.*?))^```$")

// code returns the files of a text.
func code(text string) map[string]string {
	files := map[string]string{}
	for _, m := range file.FindAllStringSubmatch(text, -1) {
		files[m[1]] = m[2]
	}
	return files
}

// blocks returns the blocks of a language.
func blocks(page, language string) (all []string) {
	for _, m := range regexp.MustCompile("(?s)\n```"+language+"\n(.*?)```\n").FindAllStringSubmatch(page, -1) {
		all = append(all, m[1])
	}
	return all
}

// block returns the block of a language that has some text.
func block(t *testing.T, page, language, text string) string {
	t.Helper()
	for _, b := range blocks(page, language) {
		if strings.Contains(b, text) {
			return b
		}
	}
	t.Fatalf("no block of %s has %q", language, text)
	return ""
}

// write writes files below a folder.
func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// caddyfiles returns the Caddyfiles of a page.
func caddyfiles(t *testing.T, name string) (configs []string) {
	t.Helper()
	configs = blocks(page(t, name), "caddyfile")
	if len(configs) < 2 {
		t.Fatalf("docs/%s has %d Caddyfiles", name, len(configs))
	}
	return configs
}
