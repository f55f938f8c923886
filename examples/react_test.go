package examples_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/performance"
	"github.com/chromedp/chromedp"

	"github.com/caddy-broadcast/caddy-broadcast/internal/npm"
	"github.com/caddy-broadcast/caddy-broadcast/internal/subprocess"
)

// TestReact: the app is built with the packages that its package.json names, and the page is laid out once per frame, however
// many prices arrive.
func TestReact(t *testing.T) {
	project := npm.NewProject(t, "../client", os.DirFS("react"))
	if app, client := versions(t, "react/package.json"), versions(t, "../client/package.json"); len(app) < 7 {
		t.Errorf("the app has the packages %q", app)
	} else {
		for name, version := range app {
			if name != "caddy-broadcast" && client[name] != version {
				t.Errorf("%s is tested at %q, and the app has %q", name, client[name], version)
			}
		}
	}
	project.Run(t, nil, "tsc")
	project.Run(t, nil, "vite", "build")
	e := start(t, "react", "root examples/react/dist", "root "+filepath.Join(project.Dir, "dist"))
	a, b := e.open(), e.open()
	a.shows("#state", "connected")
	b.shows("#present", "2 watching")
	a.do(`document.querySelector("input").focus(); document.execCommand("insertText", false, "<b>hello</b>"); document.forms[0].requestSubmit()`)
	b.shows("#notes li", "<b>hello</b>")
	a.wait(`document.querySelector("input").value == ""`)
	testLayouts(e, a)

	feed := exec.Command("node", filepath.Join(project.Dir, "feed.mjs"))
	subprocess.DieWithParent(feed)
	feed.Env, feed.Stderr = append(os.Environ(), "CADDY_ADMIN="+e.admin), t.Output()
	if err := feed.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		feed.Process.Kill()
		feed.Wait()
	})
	a.wait(`/^[1-9]\d+ prices\/s, rendered [1-9]\d* times/.test(document.getElementById("figures").textContent)`)
	a.wait(`document.querySelectorAll(".rows li").length == 300`)
}

// testLayouts publishes several prices of each row, and compares the page's layouts with its frames.
func testLayouts(e *example, p page) {
	const rows, rounds = 300, 20
	if _, err := chromedp.Call(p.ctx, performance.Enable, performance.EnableParams{}); err != nil {
		e.t.Fatal(err)
	}
	layouts := func() (n float64) {
		r, err := chromedp.Call(p.ctx, performance.GetMetrics, cdp.Empty{})
		if err != nil {
			e.t.Fatal(err)
		}
		for _, m := range r.Metrics {
			if m.Name == "LayoutCount" {
				n = m.Value
			}
		}
		return n
	}
	p.do(`globalThis.frames_ = 0; requestAnimationFrame(function count() { frames_++; requestAnimationFrame(count) })`)
	before := layouts()
	want := make([]string, rows)
	for round := range rounds {
		var lines strings.Builder
		for row := range rows {
			want[row] = fmt.Sprintf("%d.%02d", 100*row+round, round)
			fmt.Fprintf(&lines, `{"event":"price","data":{"row":%d,"price":%s}}`+"\n", row, want[row])
		}
		resp, err := http.Post(e.admin+"/broadcast/publish", "application/x-ndjson", strings.NewReader(lines.String()))
		if err != nil || resp.StatusCode != http.StatusOK {
			e.t.Fatal(resp, err)
		}
		resp.Body.Close()
	}
	quoted, _ := json.Marshal(want)
	p.wait(fmt.Sprintf(`%s.every((price, i) => document.querySelectorAll(".rows b")[i]?.textContent == price)`, quoted))
	did, frames := layouts()-before, evaluateInt(p, "frames_")
	e.t.Logf("%d prices: %v layouts in %d frames", rows*rounds, did, frames)
	if did < 1 || did > float64(frames)+3 {
		e.t.Errorf("%v layouts in %d frames", did, frames)
	}
}

func evaluateInt(p page, expression string) int {
	p.t.Helper()
	n, err := chromedp.Run(p.ctx, chromedp.Evaluate[int](expression))
	if err != nil {
		p.t.Fatal(err)
	}
	return n
}

// versions returns what a package.json says of the packages that a project needs.
func versions(t *testing.T, file string) map[string]string {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var v struct{ Dependencies, DevDependencies map[string]string }
	if err := json.Unmarshal(data, &v); err != nil {
		t.Fatal(err)
	}
	all := v.DevDependencies
	for name, version := range v.Dependencies {
		all[name] = version
	}
	return all
}
