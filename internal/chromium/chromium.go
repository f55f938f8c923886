// Package chromium starts a real browser for tests.
package chromium

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"testing"

	"github.com/chromedp/chromedp"
)

// ErrNone is returned where no browser is installed.
var ErrNone = errors.New("no Chromium is installed: apt-get install chromium")

// Options returns the options that start an installed browser, which keeps its files in dir. The sandbox is off because tests
// may run as root, where Chromium refuses to start with it.
func Options(dir string) ([]chromedp.ExecAllocatorOption, error) {
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.UserDataDir(dir)), nil
		}
	}
	return nil, ErrNone
}

// Open starts a browser that ends with the test. Where none is installed, the test is skipped, except in CI, where it fails.
func Open(t testing.TB, more ...chromedp.ExecAllocatorOption) context.Context {
	t.Helper()
	options, err := Options(t.TempDir())
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	allocator, cancel := chromedp.NewExecAllocator(t.Context(), append(options, more...)...)
	t.Cleanup(cancel)
	ctx, cancel := chromedp.NewContext(allocator)
	t.Cleanup(func() {
		chromedp.Cancel(ctx) // waits until the browser has ended, so that its folder can be removed
		cancel()
	})
	return ctx
}
