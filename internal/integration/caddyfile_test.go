package integration

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	broadcast "github.com/caddy-broadcast/caddy-broadcast"
	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
)

// TestCaddyfile: each file of testdata/caddyfile is a Caddyfile, a line of dashes, and the JSON that it becomes, which Caddy
// takes. With UPDATE in the environment the JSON is written.
func TestCaddyfile(t *testing.T) {
	const line = "\n----------\n"
	t.Setenv("NATS_HOST", "n2")
	t.Setenv("REDIS_HOST", "s1")
	files, err := filepath.Glob("testdata/caddyfile/*.caddyfiletest")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".caddyfiletest"), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			config, want, _ := strings.Cut(string(data), line)
			adapted, err := caddytest.Adapt(config)
			if err != nil {
				t.Fatal(err)
			}
			var got bytes.Buffer
			if err := json.Indent(&got, adapted, "", "\t"); err != nil {
				t.Fatal(err)
			}
			if os.Getenv("UPDATE") != "" {
				want = got.String()
				if err := os.WriteFile(file, []byte(strings.TrimSpace(config)+"\n"+line+want+"\n"), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if got.String() != strings.TrimSpace(want) {
				t.Errorf("got:\n%s\nwant:\n%s", &got, want)
			}
			var cfg caddy.Config
			if err := json.Unmarshal(adapted, &cfg); err != nil {
				t.Fatal(err)
			}
			if err := caddy.Validate(&cfg); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestCaddyfileFormat(t *testing.T) {
	formatted := "example.com {\n\tbroadcast /ws {\n\t\tchannel news {path.1}\n\t\tpublish off\n\t}\n}\n"
	if got := caddyfile.Format([]byte(strings.ReplaceAll(formatted, "\t", "  "))); string(got) != formatted {
		t.Errorf("fmt: %s", got)
	}
}

func FuzzCaddyfile(f *testing.F) {
	f.Add("broadcast /ws a b {\n\tchannel c\n\torigins https://*.example.com\n\tmax_message 1MiB\n}")
	f.Add("broadcast {\n\tcompression on 1KiB\n\tping_interval 1d\n\tpublish off\n\tslow drop\n}")
	f.Add("broadcast {\n\tgreeting `a\nb`\n\techo {\n\t}\n}")
	f.Fuzz(func(t *testing.T, input string) {
		tokens, err := caddyfile.Tokenize([]byte(input), "Caddyfile")
		if err != nil || len(tokens) == 0 {
			return
		}
		var h broadcast.Handler
		if err := h.UnmarshalCaddyfile(caddyfile.NewDispenser(tokens)); err != nil {
			if !strings.Contains(err.Error(), "Caddyfile:") {
				t.Fatalf("the error names no place: %v", err)
			}
			return
		}
		// What is taken survives as JSON.
		first, err := json.Marshal(h)
		if err != nil {
			t.Fatal(err)
		}
		var again broadcast.Handler
		if err := caddy.StrictUnmarshalJSON(first, &again); err != nil {
			t.Fatal(err)
		}
		if second, _ := json.Marshal(again); !bytes.Equal(first, second) {
			t.Fatalf("%s becomes %s", first, second)
		}
	})
}
