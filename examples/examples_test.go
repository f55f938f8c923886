// Package examples_test does with each example what its README says, in a real Chromium.
package examples_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	cdplog "github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	_ "github.com/caddy-broadcast/caddy-broadcast"
	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
	"github.com/caddy-broadcast/caddy-broadcast/internal/chromium"
)

// example is one of the folders, served by Caddy as its Caddyfile says but for the addresses.
type example struct {
	t     *testing.T
	site  string // URL
	admin string // URL of the admin API
	ctx   context.Context
}

// TestMain keeps Caddy's files out of the home directory.
func TestMain(m *testing.M) { os.Exit(caddytest.Main(m)) }

func start(t *testing.T, name string, replace ...string) *example {
	t.Helper()
	ctx := chromium.Open(t)
	if err := chromedp.Do(ctx); err != nil { // tabs are of a browser that runs
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(name, "Caddyfile"))
	if err != nil {
		t.Fatal(err)
	}
	site, admin := "localhost:"+caddytest.FreePort(t), "localhost:"+caddytest.FreePort(t)
	config := strings.NewReplacer(append(replace, "localhost:8080", site, "root examples/", "root ")...).Replace(string(text))
	options := "admin " + admin + "\n\tpersist_config off\n"
	if strings.Contains(config, "\n{\n") {
		config = strings.Replace(config, "\n{\n", "\n{\n\t"+options, 1)
	} else {
		config = "{\n\t" + options + "}\n" + config
	}
	caddytest.Run(t, config)
	return &example{t: t, site: "http://" + site, admin: "http://" + admin, ctx: ctx}
}

// page is a tab of the browser with the example's page.
type page struct {
	t   *testing.T
	ctx context.Context
}

// open opens a tab. What goes wrong in it fails the test.
func (e *example) open() page {
	e.t.Helper()
	ctx, cancel := chromedp.NewContext(e.ctx)
	e.t.Cleanup(cancel)
	p := page{e.t, ctx}
	err := chromedp.Listen(ctx, func(v any) {
		switch v := v.(type) {
		case *runtime.EventExceptionThrown:
			e.t.Errorf("the page threw %+v", v.ExceptionDetails)
		case *cdplog.EventEntryAdded:
			if v.Entry.Level == cdplog.EntryLevelError {
				e.t.Errorf("the page's log: %s %s", v.Entry.Text, v.Entry.URL)
			}
		}
	})
	if err != nil {
		e.t.Fatal(err)
	}
	p.run(chromedp.Navigate(e.site))
	return p
}

func (p page) run(actions ...chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	if err := chromedp.Do(p.ctx, actions...); err != nil {
		p.t.Fatal(err)
	}
}

func (p page) do(script string) {
	p.t.Helper()
	p.run(chromedp.Evaluate[chromedp.Void](script + "; undefined"))
}

// wait waits for a condition.
func (p page) wait(expression string) {
	p.t.Helper()
	err := chromedp.Do(p.ctx, chromedp.Poll[chromedp.Void](expression, chromedp.WithPollingInterval(20*time.Millisecond), chromedp.WithPollingTimeout(20*time.Second)))
	if err != nil {
		text, _ := chromedp.Run(p.ctx, chromedp.Evaluate[string]("document.body.innerText"))
		p.t.Fatalf("%s: %v; the page has\n%.1000s", expression, err, text)
	}
}

// shows waits until an element has a text.
func (p page) shows(selector, text string) {
	p.t.Helper()
	quoted, _ := json.Marshal([]string{selector, text})
	p.wait(fmt.Sprintf(`(([s, t]) => document.querySelector(s)?.textContent.includes(t))(%s)`, quoted))
}

// picture writes a picture of the page to the docs, if that is wanted.
func (p page) picture(name string) {
	p.t.Helper()
	if os.Getenv("SCREENSHOTS") == "" {
		return
	}
	data, err := chromedp.Run(p.ctx, chromedp.CaptureScreenshot())
	if err != nil {
		p.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join("..", "docs", name), data, 0o666); err != nil {
		p.t.Fatal(err)
	}
}

// publish publishes as curl -d does.
func (e *example) publish(query, data string) {
	e.t.Helper()
	resp, err := http.Post(e.admin+"/broadcast/publish?"+query, "application/x-www-form-urlencoded", strings.NewReader(data))
	if err != nil {
		e.t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(resp.Body)
		e.t.Fatal(resp.Status, string(body))
	}
}

func TestQuickstart(t *testing.T) {
	e := start(t, "quickstart")
	a, b := e.open(), e.open()
	a.shows("#state", "open")
	b.shows("#state", "open")
	b.wait(`document.querySelectorAll("#people li").length == 2`)
	a.do(`document.getElementById("text").value = "hi there"; document.forms[0].requestSubmit()`)
	b.shows("#messages", "hi there")
	e.publish("", "<b>from curl</b>")
	a.shows("#messages", "<b>from curl</b>")
	if os.Getenv("SCREENSHOTS") != "" {
		pictureOfQuickstart(e)
	}
}

// pictureOfQuickstart has two windows in one picture.
func pictureOfQuickstart(e *example) {
	ctx, cancel := chromedp.NewContext(e.ctx)
	defer cancel()
	p := page{e.t, ctx}
	p.run(chromedp.EmulateViewport(1200, 480), chromedp.Navigate(e.site+"/ws?client")) // of the same origin, and with no script of its own
	p.do(`document.body.style = "display: grid; grid-template: 448px / 1fr 1fr; gap: 16px; margin: 16px; background: #e9ebee"
		document.body.innerHTML = "<iframe></iframe><iframe></iframe>"
		for (const f of document.querySelectorAll("iframe")) { f.style = "border: 0; border-radius: 12px; width: 100%; height: 100%; background: canvas"; f.src = "/" }`)
	p.wait(`frames.length == 2 && Array.from(frames).every(f => f.document.getElementById("state")?.textContent == "open")`)
	say := func(i int, name, text string) {
		quoted, _ := json.Marshal([]any{i, name, text})
		p.do(fmt.Sprintf(`(([i, name, text]) => {
			const d = frames[i].document
			d.getElementById("name").value = name
			d.getElementById("name").dispatchEvent(new Event("change"))
			d.getElementById("text").value = text
			d.forms[0].requestSubmit()
		})(%s)`, quoted))
		p.wait(fmt.Sprintf(`Array.from(frames).every(f => f.document.getElementById("messages").textContent.includes(%q))`, text))
	}
	say(0, "ann", "Is the kettle on?")
	say(1, "ben", "It is. And this arrives everywhere at once.")
	e.publish("", "hello from curl")
	p.wait(`Array.from(frames).every(f => f.document.getElementById("messages").textContent.includes("hello from curl"))`)
	data, err := chromedp.Run(p.ctx, chromedp.CaptureScreenshot())
	if err != nil {
		e.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join("..", "docs", "quickstart.png"), data, 0o666); err != nil {
		e.t.Fatal(err)
	}
}

func TestChat(t *testing.T) {
	e := start(t, "chat")
	a, b := e.open(), e.open()
	say := func(p page, text string) {
		p.t.Helper()
		p.wait(`document.getElementById("state").textContent == "open"`)
		quoted, _ := json.Marshal(text)
		p.do(`document.getElementById("text").value = ` + string(quoted) + `; document.forms[0].requestSubmit()`)
	}
	a.do(`document.getElementById("name").value = "ann"; document.getElementById("name").onchange()`)
	b.shows("#people", "ann")
	say(a, "<i>hello</i>")
	b.shows("#messages", "<i>hello</i>")
	b.shows("#messages", "ann")
	b.do(`document.querySelector("nav button[value=music]").click()`)
	b.wait(`document.getElementById("state").textContent == "open" && document.getElementById("messages").childElementCount == 0`)
	a.wait(`document.querySelectorAll("#people li").length == 1`)
	say(b, "only for music")
	b.shows("#messages", "only for music")
	say(a, "only for the lobby")
	a.shows("#messages", "only for the lobby")
	b.do(`document.querySelector("nav button[value=lobby]").click()`)
	b.shows("#messages", "only for the lobby") // replayed
	b.shows("#messages", "hello")
	for _, p := range []page{a, b} {
		p.wait(`!document.getElementById("messages").textContent.includes("music")`)
	}
}

func TestHTMX(t *testing.T) {
	e := start(t, "htmx")
	p := e.open()
	p.wait(`htmx.find("body")["htmx-internal-data"].sseEventSource.readyState == 1`)
	e.publish("", "<li>Somebody bought a <b>teapot</b>")
	e.publish("event=count", "42")
	p.shows("ul li b", "teapot")
	p.shows("h1 span span", "42")
	e.publish("", "<li>another")
	p.wait(`document.querySelectorAll("ul li").length == 2 && document.querySelector("ul li").textContent == "another"`)
}

func TestTurbo(t *testing.T) {
	e := start(t, "turbo")
	p := e.open()
	p.wait(`document.querySelector("turbo-stream-source").streamSource.readyState == 1`)
	e.publish("", `<turbo-stream action="append" target="orders"><template><li>A teapot</li></template></turbo-stream>`)
	e.publish("", `<turbo-stream action="update" target="count"><template>42</template></turbo-stream>`)
	p.shows("#orders li", "A teapot")
	p.shows("#count", "42")
}

func TestFlask(t *testing.T) {
	python := caddytest.Python(t, "python3-flask", "flask")
	upstream := "localhost:" + caddytest.FreePort(t)
	e := start(t, "flask", "localhost:5000", upstream)
	_, port, _ := net.SplitHostPort(upstream)
	caddytest.StartApp(t, python, "flask/app.py", port, "PUBLISH_URL="+e.admin+"/broadcast/publish")
	a, b := e.open(), e.open()
	for i, p := range []page{a, b, a} {
		p.wait(`document.querySelector("button")?.onclick`)
		p.do(`document.querySelector("button[value=tea]").click()`)
		for _, p := range []page{a, b} {
			p.shows("button[value=tea] output", fmt.Sprint(i+1))
		}
	}
	a.shows("button[value=coffee] output", "0")
}

func TestLog(t *testing.T) {
	e := start(t, "log")
	p := e.open()
	p.shows("#log", `"uri":"/"`) // its own request
	resp, err := http.Get(e.site + "/anything")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	p.shows("#log", "/anything")
	p.do(`document.getElementById("filter").value = "anything"; document.getElementById("filter").oninput()`)
	p.wait(`document.querySelectorAll("#log div:not([hidden])").length == 1`)
	p.wait(`!document.getElementById("log").textContent.includes('"status":101')`) // it does not feed itself
	for i := range 1200 {
		if i%100 == 0 {
			resp, err := http.Get(e.site + "/many?" + fmt.Sprint(i))
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
		}
	}
	p.shows("#log", "/many?1100")
}

func TestDashboard(t *testing.T) {
	e := start(t, "dashboard")
	p := e.open()
	p.run(chromedp.EmulateViewport(1200, 800))
	p.shows("#state", "open")
	last := map[int]string{}
	feed := func(n int) {
		var lines strings.Builder
		for i := range n {
			row, price := i*7%300, fmt.Sprintf("%d.%02d", 100+i, i%100)
			last[row] = price
			fmt.Fprintf(&lines, `{"data":{"row":%d,"price":%s}}`+"\n", row, price)
		}
		resp, err := http.Post(e.admin+"/broadcast/publish", "application/x-ndjson", strings.NewReader(lines.String()))
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatal(resp, err)
		}
		resp.Body.Close()
	}
	check := func(updates int) {
		t.Helper()
		p.wait(fmt.Sprintf("count.updates == %d", updates))
		want := make([]string, 300)
		for row, price := range last {
			want[row] = price
		}
		quoted, _ := json.Marshal(want)
		p.wait(fmt.Sprintf(`%s.every((price, i) => document.querySelectorAll("#rows b")[i].textContent == price)`, quoted))
	}
	feed(2000)
	check(2000)
	p.wait("count.layouts >= 1 && count.layouts <= count.frames + 1 && count.layouts < 200")
	p.do(`count.layouts = 0; document.querySelector("input[value=naive]").click()`)
	feed(2000)
	check(4000)
	p.wait("count.layouts == 2000")
	p.do(`document.querySelector("input[value=frame]").click(); document.getElementById("press").click()`)
	p.shows("#pressed", "1")
	if os.Getenv("SCREENSHOTS") != "" {
		for i := range 250 {
			var lines strings.Builder
			for j := range 20 {
				fmt.Fprintf(&lines, `{"data":{"row":%d,"price":%.2f}}`+"\n", (i*37+j*101)%300, 100+float64((i*7919+j*104729)%90000)/100)
			}
			resp, err := http.Post(e.admin+"/broadcast/publish", "application/x-ndjson", strings.NewReader(lines.String()))
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			time.Sleep(20 * time.Millisecond) // a thousand a second, for the numbers in the picture
		}
	}
	p.picture("dashboard.png")
}
