package chromium

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/caddy-broadcast/caddy-broadcast/internal/npm"
)

// ExpectAccessible has axe-core check the page that a tab shows, and fails the test for each violation. axe-core is what
// browsers' own audits use, and finds what a program can find: contrast, names, roles, sizes, and what the keyboard cannot reach.
func ExpectAccessible(t testing.TB, ctx context.Context, where string) {
	t.Helper()
	axe, err := os.ReadFile(filepath.Join(npm.Packages(t), "axe-core", "axe.min.js"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := chromedp.Run(ctx, chromedp.Evaluate[bool](`globalThis.axe || (() => {`+string(axe)+`})(), true`)); err != nil {
		t.Fatal(err)
	}
	// The rules of WCAG 2.2 at the levels A and AA, and axe's own good practices.
	found, err := chromedp.Run(ctx, chromedp.Evaluate[[]string](`axe.run({
		resultTypes: ["violations"],
		runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
	}).then(r => r.violations.map(v => v.impact + ": " + v.id + ", " + v.help + ": " +
		v.nodes.slice(0, 5).map(n => n.target + " (" + n.any.concat(n.all, n.none).map(c => c.message).join("; ") + ")").join(" | ")))`,
		chromedp.EvalAwaitPromise))
	if err != nil {
		t.Fatal(err)
	}
	for _, violation := range found {
		t.Error(fmt.Sprint(where, ": ", violation))
	}
}
