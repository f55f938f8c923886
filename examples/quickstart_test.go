package examples_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/performance"
	"github.com/chromedp/chromedp"
)

// layouts returns how often the page was laid out.
func (p page) layouts() int {
	p.t.Helper()
	if _, err := chromedp.Call(p.ctx, performance.Enable, performance.EnableParams{}); err != nil {
		p.t.Fatal(err)
	}
	r, err := chromedp.Call(p.ctx, performance.GetMetrics, cdp.Empty{})
	if err != nil {
		p.t.Fatal(err)
	}
	for _, m := range r.Metrics {
		if m.Name == "LayoutCount" {
			return int(m.Value)
		}
	}
	p.t.Fatal("Chromium does not count layouts")
	return 0
}

// TestLayouts: these pages are laid out at most once per frame, however many messages arrive, as their READMEs say.
func TestLayouts(t *testing.T) {
	for _, name := range []string{"quickstart", "chat", "log"} {
		t.Run(name, func(t *testing.T) {
			e := start(t, name, "output broadcast log", "output discard")
			p := e.open()
			p.shows("#state", "open")
			p.do(`let frames = 0; const count = () => { frames++; requestAnimationFrame(count) }; count(); globalThis.framesSoFar = () => frames`)
			before := p.layouts()
			const n = 1000
			var lines strings.Builder
			for i := range n {
				line := map[string]string{
					"quickstart": `{"data":"line %d"}`,
					"chat":       `{"channel":"room:lobby","event":"say","data":{"name":"ann","text":"line %d","at":0}}`,
					"log":        `{"channel":"log","data":"line %d"}`,
				}[name]
				fmt.Fprintf(&lines, line+"\n", i)
			}
			resp, err := http.Post(e.admin+"/broadcast/publish", "application/x-ndjson", strings.NewReader(lines.String()))
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			box := "#messages"
			if name == "log" {
				box = "#log"
			}
			p.shows(box, fmt.Sprintf("line %d", n-1))
			layouts := p.layouts() - before
			frames, err := chromedp.Run(p.ctx, chromedp.Evaluate[int](`framesSoFar()`))
			if err != nil {
				t.Fatal(err)
			}
			// One of each may be for the state, and the list of who is there.
			if layouts > frames+2 || layouts >= n/2 {
				t.Errorf("%d layouts in %d frames, for %d messages", layouts, frames, n)
			}
			t.Logf("%d layouts in %d frames", layouts, frames)
		})
	}
}

// TestQuickstartDraft: what is typed while the server is away stays in the box.
func TestQuickstartDraft(t *testing.T) {
	e := start(t, "quickstart")
	a, b := e.open(), e.open()
	a.wait(`document.querySelectorAll("#people li").length == 2`)
	b.shows("#state", "open")
	a.do(`globalThis.Real = WebSocket; WebSocket = class { static OPEN = 1; readyState = 0; constructor() { globalThis.away = this } }`)
	for _, id := range e.connections() {
		req, err := http.NewRequest(http.MethodDelete, e.admin+"/broadcast/connections/"+id, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
	}
	a.wait(`document.getElementById("state").textContent == "connecting" && globalThis.away`)
	a.do(`document.getElementById("text").value = "typed while away"; document.getElementById("send").click()`)
	a.wait(`document.getElementById("text").value == "typed while away"`)
	a.do(`WebSocket = Real; away.onclose()`)
	a.shows("#state", "open")
	b.shows("#state", "open")
	a.do(`document.getElementById("send").click()`)
	a.wait(`document.getElementById("text").value == ""`)
	b.shows("#messages", "typed while away")
}

// connections returns the IDs of the hub's connections.
func (e *example) connections() (ids []string) {
	e.t.Helper()
	resp, err := http.Get(e.admin + "/broadcast/connections")
	if err != nil {
		e.t.Fatal(err)
	}
	defer resp.Body.Close()
	var list []struct {
		ID string `json:"id"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&list); err != nil {
		e.t.Fatal(err)
	}
	for _, c := range list {
		ids = append(ids, c.ID)
	}
	return ids
}
