package buildinfo

import (
	"runtime/debug"
	"testing"
	"time"
)

const commit = "aab3f89eaac404ce21dffaa28084ff8718503725"

// TestOf: what Go records, as `go version -m` prints it, for each way to build a Caddy with this module.
func TestOf(t *testing.T) {
	at := time.Date(2026, 11, 26, 10, 5, 11, 0, time.UTC)
	const (
		path   = "path\tgithub.com/caddy-broadcast/caddy-broadcast/cmd/caddy\n"
		main   = path + "mod\tgithub.com/caddy-broadcast/caddy-broadcast\t"
		stamp  = "build\tvcs=git\nbuild\tvcs.revision=" + commit + "\nbuild\tvcs.time=2026-11-26T10:05:11Z\n"
		xcaddy = "path\tcaddy\nmod\tcaddy\t(devel)\t\ndep\tgithub.com/caddyserver/caddy/v2\tv2.11.9\th1:x=\n" +
			"dep\tgithub.com/caddy-broadcast/caddy-broadcast\t"
	)
	for name, c := range map[string]struct {
		text string
		want Info
	}{
		"go run in a checkout": {main + "(devel)\t\n", Info{Version: Devel}},
		"go build in a checkout": {
			main + "v0.0.0-20261126100511-aab3f89eaac4\t\n" + stamp + "build\tvcs.modified=false\n",
			Info{Version: "v0.0.0-20261126100511-aab3f89eaac4", Commit: commit, Time: at},
		},
		"with changes": {
			main + "v0.0.0-20261126100511-aab3f89eaac4+dirty\t\n" + stamp + "build\tvcs.modified=true\n",
			Info{Version: "v0.0.0-20261126100511-aab3f89eaac4+dirty", Commit: commit, Time: at, Modified: true},
		},
		"at a tag": {
			main + "v0.1.0\t\n" + stamp + "build\tvcs.modified=false\n", Info{Version: "v0.1.0", Commit: commit, Time: at},
		},
		"xcaddy, a release": {xcaddy + "v0.1.0\th1:x=\n", Info{Version: "v0.1.0"}},
		"xcaddy, a commit": {
			xcaddy + "v0.0.0-20261126100511-aab3f89eaac4\th1:x=\n",
			Info{Version: "v0.0.0-20261126100511-aab3f89eaac4", Commit: "aab3f89eaac4", Time: at},
		},
		"xcaddy, a directory": {xcaddy + "v0.0.0\n=>\t/src\t(devel)\t\n", Info{Version: Devel, Directory: "/src"}},
		"xcaddy, a fork": {
			xcaddy + "v0.1.0\n=>\tgithub.com/ann/caddy-broadcast\tv0.2.0\th1:x=\n", Info{Version: "v0.2.0"},
		},
		"without the module": {"path\tx\nmod\tx\t(devel)\t\n", Info{Version: Devel}},
	} {
		t.Run(name, func(t *testing.T) {
			info, err := debug.ParseBuildInfo(c.text)
			if err != nil {
				t.Fatal(err)
			}
			if got := of(info); got != c.want {
				t.Errorf("%+v, not %+v", got, c.want)
			}
		})
	}
}

// TestRead: a test is built in a checkout of the module.
func TestRead(t *testing.T) {
	if got := Read(); got.Version == "" || got.Directory != "" {
		t.Errorf("%+v", got)
	}
}
