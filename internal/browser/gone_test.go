package browser

import (
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
	"github.com/caddy-broadcast/caddy-broadcast/internal/chromium"
)

// TestUIGone: when Caddy is gone, the inspector says so in plain words and keeps what it shows. When Caddy is back, it goes on by
// itself: with the totals, the lists, and live messages.
func TestUIGone(t *testing.T) {
	p := page{t, chromium.Open(t)}
	d := newDeployed(t)
	end := d.start()
	host, _ := caddytest.ServeInspector(t, d.admin)
	p.run(chromedp.Navigate("http://" + host))
	const state, problem = `document.querySelector("#state").textContent`, `document.querySelector("#problem").textContent`
	p.wait(state + ` == "live" && ` + problem + ` == ""`)
	d.publish(1)
	const channels = `document.querySelector("#channels tbody").textContent.startsWith("default")`
	p.wait(tailed + `.join() == "1" && ` + channels)

	end()
	p.wait(state + ` == "disconnected"`)
	p.wait(problem + `.startsWith("Caddy does not answer at ` + d.admin + ` (connection refused). This page shows what was known at ")`)
	chromium.ExpectAccessible(t, p.ctx, "without Caddy")
	p.wait(tailed + `[0] == "1" && ` + channels)
	p.run(chromedp.Evaluate[chromedp.Void](`document.querySelector("#publish").requestSubmit(); undefined`))
	p.wait(`document.querySelector("#published.bad")?.textContent.startsWith("Caddy does not answer")`)

	d.start()
	p.wait(state + ` == "live" && ` + problem + ` == ""`)
	d.publish(2)
	p.wait(tailed + `.includes("2")`)
}
