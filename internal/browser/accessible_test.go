package browser

import (
	"fmt"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"

	"github.com/caddy-broadcast/caddy-broadcast/internal/chromium"
)

// outOfReach lists what is to be clicked and cannot be: what is outside the screen, or smaller than a target must be.
const outOfReach = `[...document.querySelectorAll("button, input, textarea, summary, label:has(input)")].map(e => [e, e.getBoundingClientRect()])
	.filter(([e, r]) => r.width > 0 && !(e.matches("[type=radio]")))
	.filter(([e, r]) => r.left < 0 || r.right > innerWidth || r.height < %[1]d || r.width < 24)
	.map(([e, r]) => e.outerHTML.slice(0, 80) + " " + [r.left, r.right, r.height].map(Math.round))`

// TestUIAccessible: axe-core finds nothing, in light and dark, on a desktop and on a phone, where every target is on the screen and as
// high as a finger needs. It looks at the page with a message unfolded, with the question before a connection is closed, and without Caddy.
func TestUIAccessible(t *testing.T) {
	p := inspect(t)
	p.connect("news", "ann")
	const long = "a-channel-with-a-name-that-is-longer-than-a-telephone-is-wide"
	p.connect(long, "somebody-with-a-long-name@example.com")
	p.open()
	p.publish("news", "application/json", `{"order": 1}`)
	p.publish("news", "text/plain", strings.Repeat("long", 1000))
	p.wait(tailed + `.length == 2 && ` + connectionRows + `.length == 2`)
	p.fill("#of-channel", long)
	p.wait(connectionRows + `.length == 1`)
	p.run(chromedp.Click(chromedp.CSS("#tail summary")))
	for _, screen := range []struct {
		name          string
		width, height int64
		target        int
	}{
		{"desktop", 1200, 800, 24},
		{"phone", 360, 740, 44},
		{"small phone", 320, 568, 44},
	} {
		p.run(chromedp.EmulateViewport(screen.width, screen.height))
		if got, err := chromedp.Run(p.ctx, chromedp.Evaluate[[]string](fmt.Sprintf(outOfReach, screen.target))); err != nil || len(got) > 0 {
			t.Errorf("%s: these are out of reach: %q, %v", screen.name, got, err)
		}
		p.wait(`document.documentElement.scrollWidth <= innerWidth`)
		if screen.name == "small phone" {
			continue // axe-core finds no more on it
		}
		for _, scheme := range []string{"light", "dark"} {
			p.prefer(scheme)
			chromium.ExpectAccessible(t, p.ctx, screen.name+", "+scheme)
		}
	}
	// axe-core sees contrast only of what is not under the pointer, unless the pointer is there.
	p.run(chromedp.EmulateViewport(1200, 800), chromedp.Click(chromedp.CSS("#publish .main")))
	p.wait(`document.querySelector("#published").textContent != "" && document.querySelector("#publish .main").matches(":hover")`)
	chromium.ExpectAccessible(t, p.ctx, "the pointer on Publish")
	p.run(chromedp.Click(chromedp.CSS("#connections tbody button")))
	p.wait(`document.querySelector("#confirm").open`)
	for _, scheme := range []string{"light", "dark"} {
		p.prefer(scheme)
		chromium.ExpectAccessible(t, p.ctx, "the question, "+scheme)
	}
	p.noProblems()
}

// prefer has the browser prefer a color scheme.
func (p *inspector) prefer(scheme string) {
	p.t.Helper()
	_, err := chromedp.Call(p.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
	})
	if err != nil {
		p.t.Fatal(err)
	}
}
