package cluster

import (
	"fmt"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
	"github.com/caddy-broadcast/caddy-broadcast/internal/chromium"
)

// The inspector of one node lists all nodes and their connections, or those of one node, and says who does not answer.
func testInspector(t *testing.T, s *single) {
	if testing.Short() {
		t.Skip("a browser's time is not spent in each configuration of the tests")
	}
	waitNodes(s.nodes, 3)
	for i, n := range s.nodes {
		n.of(fmt.Sprint("user", i), "inspected", 1+i)
	}
	ctx := chromium.Open(t)
	wait := func(expression string) {
		t.Helper()
		err := chromedp.Do(ctx, chromedp.Poll[chromedp.Void](expression, chromedp.WithPollingInterval(20*time.Millisecond), chromedp.WithPollingTimeout(20*time.Second)))
		if err != nil {
			text, _ := chromedp.Run(ctx, chromedp.Evaluate[string](`document.body.innerText`))
			t.Fatalf("%s: %v\n%s", expression, err, text)
		}
	}
	const rows = `[...document.querySelectorAll("#%s tbody tr")].map(r => [...r.cells].map(c => c.textContent))`
	nodes, connections := fmt.Sprintf(rows, "nodes"), fmt.Sprintf(rows, "connections")
	host, _ := caddytest.ServeInspector(t, s.nodes[0].Admin)
	if err := chromedp.Do(ctx, chromedp.Navigate("http://"+host), chromedp.EmulateViewport(1200, 900)); err != nil {
		t.Fatal(err)
	}
	wait(nodes + `.map(r => [r[0], r[3]].join()).join(" ") == "a,up, and the one that was asked b,up c,up"`)
	wait(`document.querySelector("#broker").textContent.endsWith(" is up")`)
	if err := chromedp.Do(ctx, chromedp.SendKeys(chromedp.CSS("#of-channel"), "inspected")); err != nil {
		t.Fatal(err)
	}
	// Of all nodes, each with its name.
	wait(connections + `.map(r => r[1] + r[2]).sort().join() == "auser0,buser1,buser1,cuser2,cuser2,cuser2"`)
	chromium.ExpectAccessible(t, ctx, "three nodes")
	pick := func(i int) {
		t.Helper()
		if err := chromedp.Do(ctx, chromedp.Click(chromedp.CSS(fmt.Sprintf("#nodes tbody tr:nth-child(%d) button", i)))); err != nil {
			t.Fatal(err)
		}
	}
	pick(2)
	wait(connections + `.map(r => r[1] + r[2]).join() == "buser1,buser1"`)
	pick(2)
	wait(connections + `.length == 6`)

	// On a phone too, all three nodes are seen at once.
	if err := chromedp.Do(ctx, chromedp.EmulateViewport(360, 740)); err != nil {
		t.Fatal(err)
	}
	wait(`(e => innerWidth == 360 && e.scrollHeight <= e.clientHeight && document.documentElement.scrollWidth <= innerWidth)(document.querySelector("#cluster .scroll"))`)
	chromium.ExpectAccessible(t, ctx, "three nodes on a phone")

	s.nodes[2].freeze()
	defer s.nodes[2].thaw()
	wait(`document.querySelector("#state").textContent == "live without c" && ` + connections + `.length == 3`)
}
