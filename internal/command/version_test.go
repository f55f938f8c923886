package command

import (
	"strings"
	"testing"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/internal/buildinfo"
)

// TestPrintVersions: what is not known has no line.
func TestPrintVersions(t *testing.T) {
	at := time.Date(2026, 11, 26, 10, 5, 11, 0, time.FixedZone("", 3600))
	with := func(i buildinfo.Info, brokers ...string) versions {
		return versions{Info: i, Caddy: "v2.11.9", Go: "go1.26.8", OS: "linux", Arch: "arm64", Client: 2, Brokers: brokers}
	}
	for _, c := range []struct {
		name  string
		given versions
		want  string
	}{
		{
			"a release", with(buildinfo.Info{Version: "v0.1.0"}),
			"caddy-broadcast  v0.1.0\ncaddy            v2.11.9\ngo               go1.26.8 linux/arm64\nclient           2\nbrokers          none\n",
		},
		{
			"a checkout", with(buildinfo.Info{Version: "v0.1.1-x", Commit: "aab3f89eaac4", Time: at, Modified: true}, "nats", "redis"),
			"caddy-broadcast  v0.1.1-x\ncommit           aab3f89eaac4, 2026-11-26 09:05:11 UTC, with uncommitted changes\n" +
				"caddy            v2.11.9\ngo               go1.26.8 linux/arm64\nclient           2\nbrokers          nats, redis\n",
		},
		{
			"a directory", with(buildinfo.Info{Version: buildinfo.Devel, Directory: "/src"}, "nats"),
			"caddy-broadcast  (devel)\ndirectory        /src\ncaddy            v2.11.9\ngo               go1.26.8 linux/arm64\nclient           2\nbrokers          nats\n",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out strings.Builder
			if err := printVersions(&out, c.given); err != nil || out.String() != c.want {
				t.Errorf("%v\n%s", err, out.String())
			}
		})
	}
}
