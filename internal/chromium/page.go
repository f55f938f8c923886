package chromium

import (
	"context"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

// Page is a tab of a browser.
type Page struct {
	T   testing.TB
	Ctx context.Context
}

// In returns the page for a subtest, which fails in its place.
func (p Page) In(t testing.TB) Page { return Page{t, p.Ctx} }

// Open has the page show an address.
func (p Page) Open(url string) {
	p.T.Helper()
	if err := chromedp.Do(p.Ctx, chromedp.Navigate(url)); err != nil {
		p.T.Fatal(err)
	}
}

// Do runs a script.
func (p Page) Do(script string) {
	p.T.Helper()
	if err := chromedp.Do(p.Ctx, chromedp.Evaluate[chromedp.Void](script+"; undefined")); err != nil {
		p.T.Fatal(err)
	}
}

// Wait waits for a condition. If it does not come true, the page's text is part of the failure.
func (p Page) Wait(condition string) {
	p.T.Helper()
	poll := chromedp.Poll[chromedp.Void](condition,
		chromedp.WithPollingInterval(20*time.Millisecond), chromedp.WithPollingTimeout(20*time.Second))
	if err := chromedp.Do(p.Ctx, poll); err != nil {
		p.T.Fatalf("%s: %v; the page has\n%.1000s", condition, err, Evaluate[string](p, "location + '\\n' + document.body.innerText"))
	}
}

// Evaluate returns the value of an expression.
func Evaluate[T any](p Page, expression string) T {
	p.T.Helper()
	v, err := chromedp.Run(p.Ctx, chromedp.Evaluate[T](expression))
	if err != nil {
		p.T.Fatalf("%s: %v", expression, err)
	}
	return v
}
