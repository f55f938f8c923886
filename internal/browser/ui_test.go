package browser

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	cdplog "github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/coder/websocket"

	"github.com/caddy-broadcast/caddy-broadcast/internal/chromium"
	"github.com/caddy-broadcast/caddy-broadcast/internal/inspector"
)

// TestInspector: the page shows the hub, and does what the admin API does, by keyboard too: that of the command, and that
// of an admin endpoint which lets browsers navigate to it.
func TestInspector(t *testing.T) {
	t.Run("command", func(t *testing.T) { testInspector(t, false) })
	t.Run("admin endpoint", func(t *testing.T) { testInspector(t, true) })
}

func testInspector(t *testing.T, direct bool) {
	ctx := chromium.Open(t)
	free := func() string {
		l, err := net.Listen("tcp", "localhost:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		return l.Addr().String()
	}
	site, admin := free(), free()
	cfg, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(fmt.Sprintf(`{
		admin %[1]s {
			origins %[1]s ""
		}
		persist_config off
		broadcast {
			history 100
		}
	}
	http://%[2]s {
		broadcast /ws/* {path.1} {
			user {query.user}
		}
	}`, admin, site)), map[string]any{"filename": "Caddyfile"})
	if err == nil {
		err = caddy.Load(cfg, true)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { caddy.Stop() })
	dial := func(path string) *websocket.Conn {
		c, _, err := websocket.Dial(t.Context(), "ws://"+site+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.CloseNow() })
		return c
	}
	ann, ben := dial("/ws/news?user=ann"), dial("/ws/prices?user=ben")
	ended := make(chan error, 1)
	go func() { // reads until it is closed
		for {
			if _, _, err := ben.Read(t.Context()); err != nil {
				ended <- err
				return
			}
		}
	}()
	read := func(want string) {
		t.Helper()
		_, data, err := ann.Read(t.Context())
		if err != nil || string(data) != want {
			t.Errorf("ann got %q and %v, not %q", data, err, want)
		}
	}
	publish := func(channel, data string) {
		t.Helper()
		resp, err := http.Post("http://"+admin+"/broadcast/publish?channel="+channel, "text/plain", strings.NewReader(data))
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatal(resp, err)
		}
		resp.Body.Close()
	}

	l, err := net.Listen("tcp", "localhost:0")
	if err != nil {
		t.Fatal(err)
	}
	host := fmt.Sprint("localhost:", l.Addr().(*net.TCPAddr).Port)
	handler, err := inspector.Handler(host, admin)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(handler)
	server.Listener.Close()
	server.Listener = l
	server.Start()
	t.Cleanup(server.Close)
	for _, header := range []string{"Host: evil.example", "Origin: https://evil.example", "Sec-Fetch-Site: cross-site"} {
		r, err := http.NewRequest("POST", "http://"+host+"/broadcast/publish", strings.NewReader("x"))
		if err != nil {
			t.Fatal(err)
		}
		name, value, _ := strings.Cut(header, ": ")
		if r.Header.Set(name, value); name == "Host" {
			r.Host = value
		}
		resp, err := http.DefaultClient.Do(r)
		if err != nil || resp.StatusCode != http.StatusForbidden {
			t.Errorf("%s: %v %v", header, resp, err)
		}
		resp.Body.Close()
	}

	address := "http://" + host
	if direct {
		address = "http://" + admin + "/broadcast/ui"
	}
	p := page{t, ctx}
	var mu sync.Mutex
	var wrong []string
	note := func(format string, args ...any) {
		mu.Lock()
		wrong = append(wrong, fmt.Sprintf(format, args...))
		mu.Unlock()
	}
	if err := chromedp.Listen(ctx, func(v any) {
		switch v := v.(type) {
		case *runtime.EventExceptionThrown:
			note("the page threw %+v", v.ExceptionDetails)
		case *cdplog.EventEntryAdded:
			if v.Entry.Level == cdplog.EntryLevelError {
				note("the page's log: %s %s", v.Entry.Text, v.Entry.URL)
			}
		}
	}); err != nil {
		t.Fatal(err)
	}
	p.run(chromedp.EmulateViewport(1280, 900), chromedp.Navigate(address))
	p.wait(`document.querySelector("[data-total=connections] output")?.value == "3" && document.getElementById("tail-state").textContent == ""`)
	p.wait(`document.querySelectorAll("#connections tr").length == 3 && document.getElementById("channels").textContent.includes("prices")`)

	publish("news", "<img src=x onerror=\"document.title='bad'\">")
	read("<img src=x onerror=\"document.title='bad'\">")
	p.wait(`document.getElementById("tail").textContent.includes("onerror=")`)
	if evaluate[bool](p, `!!document.querySelector("#tail img") || document.title == "bad"`) {
		t.Error("what is published is taken as HTML")
	}

	// The keyboard does it all: go to an element, type, press.
	focus := func(selector string) {
		t.Helper()
		p.run(chromedp.Focus(selector))
	}
	keys := func(s string) { t.Helper(); p.run(chromedp.KeyEvent(s)) }
	selectAll := func() { p.run(chromedp.Evaluate[chromedp.Void]("document.activeElement.select(); undefined")) }
	fill := func(selector, text string) { t.Helper(); focus(selector); selectAll(); keys(text) }
	const awkward = `it's "$HOME" \n <é> 50%`
	fill("#publish [name=channel]", "news")
	fill("#publish [name=event]", "upd ate")
	fill("#publish textarea", awkward)
	focus("#publish > button")
	keys("\r")
	read(awkward)
	p.wait(`document.getElementById("published").value.endsWith(" to 1")`)

	// The lines that it shows do the same.
	line := evaluate[string](p, `document.getElementById("curl").textContent`)
	if out, err := exec.Command("sh", "-c", line).CombinedOutput(); err != nil {
		t.Errorf("%s: %v %s", line, err, out)
	}
	read(awkward)
	if _, err := exec.LookPath("python3"); err == nil {
		script := evaluate[string](p, `document.getElementById("python").textContent`)
		if out, err := exec.Command("python3", "-c", script).CombinedOutput(); err != nil {
			t.Errorf("%s: %v %s", script, err, out)
		}
		read(awkward)
	}
	if js := evaluate[string](p, `document.getElementById("js").textContent`); !strings.Contains(js, `.publish("it's \"$HOME\" \\n <é> 50%", {"channel":"news","event":"upd ate"})`) {
		t.Errorf("the line in JavaScript is %s", js)
	}
	focus("#publish [name=kind][value=json]")
	keys(" ")
	fill("#publish textarea", `{"price": 3}`)
	focus("#publish > button")
	keys("\r")
	read(`{"price": 3}`)
	fill("#publish textarea", `{`)
	focus("#publish > button")
	keys("\r")
	p.wait(`document.getElementById("published").value.includes("not JSON")`)

	// Filters, and pause.
	publish("prices", "teapots")
	fill("#tail-channel", "pri")
	p.wait(`document.querySelectorAll("#tail p").length == 1 && document.getElementById("tail").textContent.includes("teapots")`)
	fill("#tail-text", "cups")
	p.wait(`document.querySelectorAll("#tail p").length == 0`)
	publish("prices", "two cups")
	p.wait(`document.getElementById("tail").textContent.includes("two cups")`)
	focus("#pause")
	keys("\r")
	publish("prices", "three cups")
	publish("news", "later")
	read("later")
	p.wait(`document.getElementById("channels").textContent.includes("prices")`)
	if evaluate[bool](p, `document.getElementById("tail").textContent.includes("three")`) {
		t.Error("it does not pause")
	}
	keys("\r")
	p.wait(`document.getElementById("tail").textContent.includes("three cups")`)
	for _, id := range []string{"#tail-channel", "#tail-text"} {
		focus(id)
		selectAll()
		keys("\b")
	}

	if !direct && os.Getenv("SCREENSHOTS") != "" {
		pictureOfInspector(t, p, dial, publish)
	}

	fill("#of-user", "ben")
	p.wait(`document.querySelectorAll("#connections tr").length == 1 && document.getElementById("connections").textContent.includes("ben")`)
	focus("#connections button")
	keys("\r")
	p.wait(`document.activeElement.textContent == "Sure?"`)
	keys("\r")
	p.wait(`document.getElementById("connections").textContent.includes("Nobody")`)
	if err := <-ended; websocket.CloseStatus(err) != websocket.StatusPolicyViolation {
		t.Errorf("ben's connection ends with %v", err)
	}

	// A burst is bounded.
	var lines strings.Builder
	for i := range 3000 {
		data, _ := json.Marshal(map[string]any{"channel": "burst", "data": fmt.Sprint("number ", i)})
		fmt.Fprintf(&lines, "%s\n", data)
	}
	resp, err := http.Post("http://"+admin+"/broadcast/publish", "application/x-ndjson", strings.NewReader(lines.String()))
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatal(resp, err)
	}
	resp.Body.Close()
	p.wait(`document.getElementById("tail").textContent.includes("number 2999") && document.querySelectorAll("#tail p").length <= 500`)

	mu.Lock()
	defer mu.Unlock()
	for _, s := range wrong {
		if !strings.Contains(s, "/broadcast/publish") { // the refused one
			t.Error(s)
		}
	}
}

// pictureOfInspector writes the picture in the docs.
func pictureOfInspector(t *testing.T, p page, dial func(string) *websocket.Conn, publish func(channel, data string)) {
	for i, path := range []string{"/ws/news?user=carla", "/ws/prices?user=dan", "/ws/prices", "/ws/room:7?user=eve", "/ws/room:7?user=finn"} {
		dial(path)
		_ = i
	}
	p.run(chromedp.Evaluate[chromedp.Void](`
		document.querySelector("[name=channel]").value = "prices"
		document.querySelector("[name=event]").value = "update"
		document.querySelector("textarea").value = '{"row": 7, "price": 103.2}'
		document.querySelector("[value=json]").click()
		document.getElementById("publish").oninput()
		document.getElementById("published").value = ""
		document.getElementById("tail").replaceChildren()
		document.activeElement.blur()
		undefined`))
	for i := range 400 { // some seconds, for the plots
		publish("prices", fmt.Sprintf(`{"row": %d, "price": %.2f}`, i*7%300, 100+float64(i*37%100)/10))
		if i%40 == 0 {
			publish("room:7", "eve: is the kettle on?")
			publish("news", "A teapot was sold")
		}
		time.Sleep(time.Duration(10+i%7*5+i/3%40) * time.Millisecond)
	}
	data, err := chromedp.Run(p.ctx, chromedp.CaptureScreenshot())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join("..", "..", "docs", "inspector.png"), data, 0o666); err != nil {
		t.Fatal(err)
	}
}
