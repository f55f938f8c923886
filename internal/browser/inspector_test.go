package browser

import (
	"net/http"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
)

// TestUIByCommand: the server of `caddy broadcast ui` shows the page where the admin endpoint lets no browser navigate to it,
// and answers that page alone. When the command has ended, the page says that it was the command.
func TestUIByCommand(t *testing.T) {
	p := inspect(t)
	ann := p.connect("news", "ann")
	host, end := caddytest.ServeInspector(t, p.admin)
	for _, header := range []string{"Host: evil.example", "Origin: https://evil.example", "Sec-Fetch-Site: cross-site"} {
		r, err := http.NewRequest("POST", "http://"+host+"/broadcast/publish?channel=news", strings.NewReader("x"))
		if err != nil {
			t.Fatal(err)
		}
		name, value, _ := strings.Cut(header, ": ")
		if r.Header.Set(name, value); name == "Host" {
			r.Host = value
		}
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusForbidden {
			t.Errorf("%s: %s", header, resp.Status)
		}
	}
	p.run(chromedp.Navigate("http://" + host))
	p.wait(`document.querySelector("#state").textContent == "live"`)
	p.wait(`document.querySelector("#curl").textContent.includes("'http://` + p.admin + `/broadcast/publish?")`)
	p.fill("#channel", "news")
	p.fill("#data", "by the page")
	p.run(chromedp.Evaluate[chromedp.Void](`document.getElementById("publish").requestSubmit(); undefined`))
	ann.wants("by the page")
	p.wait(`document.body.innerText.includes("by the page")`)
	p.noProblems()

	end()
	p.wait("document.querySelector(\"#problem\").textContent.startsWith(\"The command `caddy broadcast ui` has ended. \")")
}
