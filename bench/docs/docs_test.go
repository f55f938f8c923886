package docs

import (
	"os"
	"path/filepath"
	"testing"
)

func TestMet(t *testing.T) {
	for _, c := range []struct {
		reached, most float64
		want          string
	}{{1, 1, "met"}, {3, 2, "**missed by 50 %**"}, {0, 0, "met"}, {1, 0, "**missed**"}} {
		if got := Met(c.reached, c.most); got != c.want {
			t.Errorf("%g of at most %g: %s", c.reached, c.most, got)
		}
	}
}

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
