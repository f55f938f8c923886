package docs

import (
	"os"
	"path/filepath"
	"testing"
)

func TestWrite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "page.md")
	const before = "# Page\n\n<!-- figures: written by x -->\n\nold\n<!-- end of figures -->\n\nText.\n"
	if err := os.WriteFile(path, []byte(before), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := Write(path, "y", "new\n"); err == nil {
		t.Error("figures of another command were replaced")
	}
	if got, _ := os.ReadFile(path); string(got) != before {
		t.Errorf("after an error: %q", got)
	}
	if err := Write(path, "x", "new\n"); err != nil {
		t.Fatal(err)
	}
	want := "# Page\n\n<!-- figures: written by x -->\n\nnew\n\n<!-- end of figures -->\n\nText.\n"
	if got, _ := os.ReadFile(path); string(got) != want {
		t.Errorf("%q, not %q", got, want)
	}
}
