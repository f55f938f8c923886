package historyfile

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
)

// TestRemoveLitter: only the files of instances are removed that have not started for long, and neither their marks nor this one's.
func TestRemoveLitter(t *testing.T) {
	t.Setenv("XDG_DATA_HOME", t.TempDir())
	s := &certmagic.FileStorage{Path: t.TempDir()}
	now := time.Now()
	removeLitter(s) // nothing is there yet
	for key, age := range map[string]time.Duration{
		fileKey(): 2 * litter, markKey(): 2 * litter,
		"broadcast/gone/history": 2 * litter, "broadcast/gone/history_mark": 2 * litter,
		"broadcast/off/history": litter / 2, "other/gone/history": 2 * litter,
	} {
		name := filepath.Join(s.Path, key)
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(name, now, now.Add(-age)); err != nil {
			t.Fatal(err)
		}
	}
	removeLitter(s)
	for key, want := range map[string]bool{
		fileKey(): true, markKey(): true, "broadcast/gone/history": false, "broadcast/gone/history_mark": true,
		"broadcast/off/history": true, "other/gone/history": true,
	} {
		if s.Exists(t.Context(), key) != want {
			t.Errorf("%s is there: %v", key, !want)
		}
	}
}
