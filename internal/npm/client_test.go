package npm_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
	"github.com/caddy-broadcast/caddy-broadcast/internal/chromium"
	"github.com/caddy-broadcast/caddy-broadcast/internal/npm"
)

// client is the folder of the package that we publish.
const client = "../../client"

// TestPackage: programs that install our npm package find its types, and can be run by Node, built, rendered by a server, and
// used in a browser.
func TestPackage(t *testing.T) {
	if testing.Short() {
		t.Skip("it runs compilers and a browser, which need no repetition")
	}
	project := npm.NewProject(t, client, os.DirFS("testdata/client"))
	t.Run("contents", func(t *testing.T) { testContents(t, filepath.Join(project.Dir, "node_modules/caddy-broadcast")) })
	t.Run("rendered by a server", func(t *testing.T) { project.Run(t, nil, "node", "render.mjs") }) // it writes readme.tsx
	t.Run("types", func(t *testing.T) {
		for _, resolution := range [][]string{
			{"--module", "nodenext", "--moduleResolution", "nodenext"}, // also checks the package's own files
			{"--module", "esnext", "--moduleResolution", "bundler", "--skipLibCheck"},
		} {
			project.Run(t, nil, "tsc", append([]string{"-p", "."}, resolution...)...)
		}
	})
	// With React's own checks: in StrictMode it mounts everything twice.
	project.Run(t, []string{"NODE_ENV=development"}, "vite", "build", "--mode", "development")
	project.Run(t, nil, "esbuild", "worker.ts", "--bundle", "--minify", "--outfile=dist/worker.js", "--log-level=warning")

	s := caddytest.Start(t, `broadcast {
		history 1000
	}
	---
	broadcast /ws default other {
		user {query.user}
		presence 0
	}
	broadcast /expiring {
		expires {query.until}
	}
	respond /closed 403
	root `+filepath.Join(project.Dir, "dist")+`
	file_server`)
	t.Run("node", func(t *testing.T) {
		project.Run(t, []string{"SITE=" + s.Addr}, "node", "node.mjs")
		// In Node 20 its own WebSocket must be asked for.
		project.Run(t, []string{"SITE=" + s.Addr}, "node", "--experimental-websocket", "node.mjs")
	})
	t.Run("browser", func(t *testing.T) {
		page := chromium.Page{T: t, Ctx: chromium.Open(t)}
		for _, framework := range []string{"react", "vue", "svelte"} {
			t.Run(framework, func(t *testing.T) { testFramework(s.In(t), page.In(t), framework) })
		}
		t.Run("service worker", func(t *testing.T) { testServiceWorker(s.In(t), page.In(t)) })
	})
}

// testContents: the package has all files that it exports, each with its types, and nothing that only Caddy needs.
func testContents(t *testing.T, dir string) {
	var got []string
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		got = append(got, entry.Name())
	}
	want := []string{"LICENSE", "README.md", "package.json"}
	for _, name := range []string{"broadcast", "index", "presence", "react", "stores", "svelte", "vue"} {
		want = append(want, name+".d.ts", name+".js")
	}
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("it has %q, not %q", got, want)
	}
	var manifest struct{ Exports map[string]any }
	data, err := os.ReadFile(filepath.Join(dir, "package.json"))
	if err == nil {
		err = json.Unmarshal(data, &manifest)
	}
	if err != nil {
		t.Fatal(err)
	}
	exported := slices.Sorted(maps.Keys(manifest.Exports))
	if !slices.Equal(exported, []string{".", "./package.json", "./react", "./svelte", "./vue"}) {
		t.Errorf("it exports %q", exported)
	}
	license, err := os.ReadFile(filepath.Join(dir, "LICENSE"))
	if err != nil {
		t.Fatal(err)
	}
	if ours, err := os.ReadFile("../../LICENSE"); err != nil || !bytes.Equal(license, ours) {
		t.Error("its license is another one than the repository's", err)
	}
}

// prices publishes a price of each row, several times over, and returns what pages show of it in the end. Each round is a request, so
// that it arrives by itself.
func prices(s *caddytest.Server, channel string, rows, rounds int) string {
	s.T.Helper()
	last := make([]string, rows)
	for round := range rounds {
		var lines strings.Builder
		for row := range rows {
			price := round*rows + row
			fmt.Fprintf(&lines, `{"channel":%q,"event":"price","data":{"row":%d,"price":%d}}`+"\n", channel, row, price)
			last[row] = fmt.Sprintf("%d=%d", row, price)
		}
		if status, answer := s.Post(s.Admin+"/broadcast/publish", "application/x-ndjson", lines.String()); status != 200 {
			s.T.Fatal(status, answer)
		}
	}
	return strings.Join(last, " ")
}

// shows is true if an element has exactly this text.
func shows(id, text string) string {
	return fmt.Sprintf("document.getElementById(%q)?.textContent.trim() == %q", id, text)
}

// testFramework does the same with each framework: its page has two components that use the same address, a table of prices,
// and a list of members.
func testFramework(s *caddytest.Server, page chromium.Page, name string) {
	t := s.T
	connections := func(n int) {
		t.Helper()
		s.WaitTotals(func(v caddytest.Totals) bool { return v.Connections == n })
	}
	page.Open("http://" + s.Addr + "/" + name + ".html")
	page.Wait(shows("state", "open"))
	page.Wait(shows("present", "1 ann"))
	if n := chromium.Evaluate[int](page, "seen.sockets"); n != 1 {
		t.Errorf("its components opened %d connections", n)
	}

	// More messages than frames: it is rendered at most once per frame, and in the end has the latest of each row.
	page.Do("seen.renders = seen.frames = 0")
	page.Wait(shows("prices", prices(s, "default", 50, 40)))
	if renders, frames := chromium.Evaluate[int](page, "seen.renders"), chromium.Evaluate[int](page, "seen.frames"); renders < 1 || renders > 2*frames+2 {
		t.Errorf("rendered %d times in %d frames", renders, frames)
	}

	ben := s.Dial("/ws?user=ben", nil)
	page.Wait(shows("present", "2 ann ben"))
	ben.CloseNow()

	// Another channel: nothing of the first one is left.
	page.Do(`show({ channel: "other" })`)
	page.Wait(shows("prices", ""))
	page.Wait(shows("present", "1 ann") + "||" + shows("present", "2 ann ben"))
	page.Wait(shows("prices", prices(s, "other", 2, 1)))

	page.Do(`show({ url: "/closed" })`)
	page.Wait(shows("state", "refused 403"))
	page.Wait(shows("prices", ""))
	page.Do(`seen.sockets = 0; show({ url: "/ws?user=cid" })`)
	page.Wait(shows("state", "open"))
	connections(1)
	page.Do(`show({ url: undefined })`)
	page.Wait(shows("state", "unmounted"))
	connections(0)
	prices(s, "default", 2, 1)
	if n := chromium.Evaluate[int](page, "seen.sockets"); n != 1 {
		t.Errorf("it opened %d connections to another address", n)
	}
}

// testServiceWorker: a service worker receives and publishes. It has no window, no document and no animation frames.
func testServiceWorker(s *caddytest.Server, page chromium.Page) {
	page.Open("http://" + s.Addr + "/worker.html")
	page.Wait(`globalThis.heard?.includes("open")`)
	page.Do(`worker.postMessage("from the page")`)
	page.Wait(`heard.some(what => /^published ./.test(what))`)
	page.Wait(`heard.flat().includes("from the page")`)
	s.Publish("", "from elsewhere")
	page.Wait(`heard.flat().includes("from elsewhere")`)
}
