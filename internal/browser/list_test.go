package browser

import (
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/caddy-broadcast/caddy-broadcast/internal/chromium"
)

// TestPageWithList: the page of docs/browser.md that starts with a list shows each order once, those too that it was never told of.
func TestPageWithList(t *testing.T) {
	text, err := os.ReadFile("../../docs/browser.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(text), "\n## A page that starts with a list\n")
	block := regexp.MustCompile("(?s)```js\n(.*?)```").FindStringSubmatch(section)
	if block == nil {
		t.Fatal("docs/browser.md no longer has the page")
	}
	p := page{t, chromium.Open(t)}
	s := serve(t, `<!doctype html><link rel="icon" href="data:,"><ul id="orders"></ul><script type="module" src="/app.js"></script>`, "broadcast /ws")
	s.write("app.js", block[1])
	s.write("orders", `[{"id": 1, "item": "tea"}]`)
	shows := func(want string) {
		t.Helper()
		p.wait(`[...document.querySelectorAll("#orders li")].map(row => row.textContent).join() == "` + want + `"`)
	}
	p.run(chromedp.Navigate("http://" + s.addr))
	shows("1 tea")
	resp, err := http.Post("http://"+s.addr+"/ws?event=created", "application/json", strings.NewReader(`{"id": 2, "item": "milk"}`))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	shows("1 tea,2 milk")
	s.write("orders", `[{"id": 1, "item": "tea"}, {"id": 2, "item": "milk"}, {"id": 3, "item": "salt"}]`)
	s.cut()
	shows("1 tea,2 milk,3 salt")
}
