package browser

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"maps"
	"math"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/chromedp/cdproto/audits"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/coder/websocket"

	"github.com/caddy-broadcast/caddy-broadcast/internal/chromium"
)

// inspector is Caddy with its admin endpoint, and the inspector in a browser.
type inspector struct {
	t           *testing.T
	ctx         context.Context
	addr, admin string

	mu       sync.Mutex
	problems []string
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

func inspect(t *testing.T, more ...chromedp.ExecAllocatorOption) *inspector {
	t.Helper()
	p := &inspector{t: t, ctx: chromium.Open(t, more...), addr: "localhost:" + freePort(t), admin: "localhost:" + freePort(t)}
	config := fmt.Sprintf(`{
		admin %[1]s {
			origins %[1]s ""
		}
		persist_config off
		broadcast {
			history 1000
		}
	}
	http://%[2]s {
		broadcast /ws/* {path.1} {
			user {query.user}
			max_backlog 8MiB
		}
		header Content-Type text/html
		respond "<!doctype html><title>Another origin</title><p>Hello"
	}`, p.admin, p.addr)
	cfg, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(config), map[string]any{"filename": "Caddyfile"})
	if err == nil {
		err = caddy.Load(cfg, true)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := caddy.Stop(); err != nil {
			t.Error(err)
		}
	})
	err = chromedp.Listen(p.ctx, func(ev any) {
		problem := ""
		switch ev := ev.(type) {
		case *runtime.EventExceptionThrown:
			problem = fmt.Sprint("exception: ", ev.ExceptionDetails.Text, " ", ev.ExceptionDetails.Exception.Description)
		case *runtime.EventConsoleAPICalled:
			problem = fmt.Sprint("console: ", ev.Type)
		case *log.EventEntryAdded:
			problem = fmt.Sprint("log: ", ev.Entry.Text, " ", ev.Entry.URL)
		case *audits.EventIssueAdded:
			details, _ := json.Marshal(ev.Issue)
			problem = fmt.Sprintf("issue: %s", details)
		default:
			return
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		p.problems = append(p.problems, problem)
	})
	if err == nil {
		_, err = chromedp.Call(p.ctx, audits.Enable, cdp.Empty{})
	}
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *inspector) open() {
	p.t.Helper()
	p.run(chromedp.Navigate("http://" + p.admin + "/broadcast/ui"))
	p.wait(`document.querySelector("#state").textContent == "live"`)
}

func (p *inspector) run(actions ...chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	if err := chromedp.Do(p.ctx, actions...); err != nil {
		p.t.Fatal(err)
	}
}

// wait waits until an expression in the page is true.
func (p *inspector) wait(expression string) {
	p.t.Helper()
	err := chromedp.Do(p.ctx, chromedp.Poll[chromedp.Void](expression,
		chromedp.WithPollingInterval(20*time.Millisecond), chromedp.WithPollingTimeout(30*time.Second)))
	if err != nil {
		p.t.Fatalf("%s: %v\n%s", expression, err, p.eval("document.body.innerText"))
	}
}

func (p *inspector) eval(expression string) string {
	p.t.Helper()
	s, err := chromedp.Run(p.ctx, chromedp.Evaluate[string](expression))
	if err != nil {
		p.t.Fatal(err)
	}
	return s
}

// fill replaces what a field says, as a user does.
func (p *inspector) fill(field, text string) {
	p.t.Helper()
	p.run(chromedp.Focus(chromedp.CSS(field)), chromedp.KeyEvent("a", chromedp.KeyModifiers(kb.ModifierCtrl)), chromedp.KeyEvent(kb.Delete))
	if text != "" {
		p.run(chromedp.KeyEvent(text))
	}
}

// tab goes by the tabulator to the element that a selector names.
func (p *inspector) tab(selector string) {
	p.t.Helper()
	for range 80 {
		p.run(chromedp.KeyEvent(kb.Tab))
		if p.eval(fmt.Sprintf("String(document.activeElement.matches(%q))", selector)) == "true" {
			return
		}
	}
	p.t.Fatalf("the tabulator does not reach %s, but %s", selector, p.eval("document.activeElement.outerHTML"))
}

func (p *inspector) publish(channel, contentType, data string) {
	p.t.Helper()
	resp, err := http.Post("http://"+p.admin+"/broadcast/publish?channel="+channel, contentType, strings.NewReader(data))
	if err != nil {
		p.t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 200 {
		p.t.Fatal(resp.Status)
	}
}

// client is a WebSocket's.
type client struct {
	t        *testing.T
	messages chan string
	closed   chan websocket.StatusCode
}

func (p *inspector) connect(channel, user string) *client {
	p.t.Helper()
	conn, _, err := websocket.Dial(p.t.Context(), fmt.Sprintf("ws://%s/ws/%s?user=%s", p.addr, channel, user), nil)
	if err != nil {
		p.t.Fatal(err)
	}
	conn.SetReadLimit(-1)
	c := &client{p.t, make(chan string, 10_000), make(chan websocket.StatusCode, 1)}
	go func() {
		defer conn.CloseNow()
		for {
			_, data, err := conn.Read(p.t.Context())
			if err != nil {
				c.closed <- websocket.CloseStatus(err)
				return
			}
			c.messages <- string(data)
		}
	}()
	return c
}

func (c *client) wants(data string) {
	c.t.Helper()
	select {
	case got := <-c.messages:
		if got != data {
			c.t.Errorf("got %q, want %q", got, data)
		}
	case <-time.After(30 * time.Second):
		c.t.Fatalf("%q has not come", data)
	}
}

func (c *client) wantsClose(code websocket.StatusCode) {
	c.t.Helper()
	select {
	case got := <-c.closed:
		if got != code {
			c.t.Errorf("closed with %d, want %d", got, code)
		}
	case <-time.After(30 * time.Second):
		c.t.Fatal("it is not closed")
	}
}

func (p *inspector) noProblems() {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, problem := range p.problems {
		p.t.Error(problem)
	}
}

// In the page: the texts of the rows of a table, and of the messages that are shown.
const (
	rowsOf = `[...document.querySelectorAll("#%s tbody tr")].map(r => [...r.cells].map(c => c.textContent).join("|"))`
	tailed = `[...document.querySelectorAll("#tail p:not([hidden])")].map(p => p.lastChild.textContent)`
)

// TestUI: the inspector shows the hub, safely, and what it does is done.
func TestUI(t *testing.T) {
	p := inspect(t)
	connections := fmt.Sprintf(rowsOf, "connections")
	channels := fmt.Sprintf(rowsOf, "channels")
	ann, ben := p.connect("news", "ann"), p.connect("prices", "ben")
	p.open()

	// The totals and the lists: two clients, and the page itself.
	p.wait(`document.querySelector("#totals dd").textContent == "3"`)
	p.wait(`document.querySelectorAll("#totals .curve[d]").length == 4`)
	p.wait(connections + `.length == 3`)
	p.wait(channels + `.join() == "news|1|0,prices|1|0"`)
	if s := p.eval(connections + `[0]`); !strings.Contains(s, "|ann|") || !strings.Contains(s, "|websocket|news|") {
		t.Errorf("the first connection is %q", s)
	}

	// What strangers say is text.
	markup := `<img src=x onerror="document.title='hacked'"><script>document.title='hacked'</script>`
	p.publish("news", "text/plain", markup)
	ann.wants(markup)
	p.wait(tailed + `.length == 1`)
	if s := p.eval(tailed + `[0]`); s != markup {
		t.Errorf("the message is shown as %q", s)
	}
	bad := p.connect(`%3Cimg%20src=x%20onerror=alert(1)%3E`, `%3Cb%3Ebad%3C%2Fb%3E`)
	p.wait(connections + `.some(s => s.includes("|<b>bad</b>|") && s.includes("|<img src=x onerror=alert(1)>|"))`)
	p.wait(channels + `[0].startsWith("<img")`)
	if s := p.eval(`document.title + document.querySelectorAll("main img, main b, main script").length`); s != "Inspector · caddy-broadcast0" {
		t.Errorf("after markup: %q", s)
	}

	// The filters of the lists.
	p.fill("#prefix", "pri")
	p.wait(channels + `.join() == "prices|1|0"`)
	p.fill("#of-user", "ben")
	p.wait(connections + `.length == 1`)
	p.fill("#of-user", "")
	p.fill("#of-channel", "news")
	p.wait(connections + `.length == 1 && ` + connections + `[0].includes("ann")`)
	p.fill("#of-channel", "")
	p.fill("#prefix", "")
	p.wait(connections + `.length == 4`)

	// The form, and the same from a shell and from Python.
	nasty := "it's \"1\" `2` $HOME \\n <!-- é 😀 -->\n@data=3&data=%41"
	p.fill("#channel", "news")
	p.fill("#event", "it's")
	p.run(chromedp.SetValue(chromedp.CSS("#data"), nasty), chromedp.SendKeys(chromedp.CSS("#data"), kb.End+"!"))
	nasty += "!"
	p.run(chromedp.Click(chromedp.CSS("#publish .main")))
	ann.wants(nasty)
	p.wait(`/^\w+-\d+, to 1 client$/.test(document.querySelector("#published").textContent)`)
	shell := func(name string, args ...string) {
		t.Helper()
		if _, err := exec.LookPath(name); err != nil {
			t.Logf("%s is not installed", name)
			return
		}
		if out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput(); err != nil {
			t.Fatalf("%q: %v: %s", args, err, out)
		}
		ann.wants(nasty)
	}
	shell("sh", "-c", p.eval(`document.querySelector("#curl").textContent`))
	shell("python3", "-c", p.eval(`document.querySelector("#python").textContent`))
	p.wait(tailed + `.filter(s => s == ` + quoted(nasty) + `).length >= 2`)
	js := p.eval(`document.querySelector("#js").textContent`)
	if s := p.eval(`new Function("connect", ` + quoted(js) + `.replace(/^import.*\n/, "return "))(u => ({ publish: (...args) => JSON.stringify([u, ...args]) }))`); s !=
		p.eval(`JSON.stringify(["/ws", `+quoted(nasty)+`, { channel: "news", event: "it's" }])`) {
		t.Errorf("JavaScript publishes %s", s)
	}

	// JSON, checked before it goes.
	p.run(chromedp.Click(chromedp.CSS(`[name=kind][value=json]`)))
	p.wait(`document.querySelector("#curl").textContent.startsWith("This is not valid JSON") && !document.querySelector("#data").validity.valid`)
	nasty = `{"__proto__": [1, "it's"]}`
	p.fill("#data", nasty)
	p.wait(`document.querySelector("#data").validity.valid`)
	p.run(chromedp.Click(chromedp.CSS("#publish .main")))
	ann.wants(nasty)
	shell("sh", "-c", p.eval(`document.querySelector("#curl").textContent`))
	shell("python3", "-c", p.eval(`document.querySelector("#python").textContent`))

	// A refusal is shown.
	p.fill("#channel", strings.Repeat("x", 256))
	p.run(chromedp.Click(chromedp.CSS("#publish .main")))
	p.wait(`document.querySelector("#published.bad")?.textContent.includes("channel")`)
	p.mu.Lock()
	if n := len(p.problems); n != 1 || !strings.Contains(p.problems[0], "400") {
		t.Errorf("the browser's own line about the status 400 is not the only one: %q", p.problems)
	}
	p.problems = nil
	p.mu.Unlock()

	// The tail's filters, and its pause.
	p.fill("#tail-channel", "pri")
	p.wait(tailed + `.length == 0`)
	p.publish("prices", "application/json", `{"price": 3}`)
	p.publish("news", "text/plain", "no price")
	ben.wants(`{"price": 3}`)
	p.wait(tailed + `.join() == '{"price":3}'`)
	p.fill("#tail-channel", "")
	p.fill("#tail-text", "PRICE")
	p.wait(tailed + `.join() == '{"price":3},no price'`)
	p.run(chromedp.Click(chromedp.CSS("#pause")))
	p.publish("news", "text/plain", "another price")
	p.wait(`document.querySelector("#pause").textContent == "Resume (1)"`)
	p.wait(tailed + `.length == 2`)
	p.run(chromedp.Click(chromedp.CSS("#pause")))
	p.wait(tailed + `.join() == '{"price":3},no price,another price' && document.querySelector("#pause").textContent == "Pause"`)

	// It is bounded, also in what one message takes.
	p.fill("#tail-text", "")
	for range 6 {
		resp, err := http.Post("http://"+p.admin+"/broadcast/publish", "application/x-ndjson", strings.NewReader(strings.Repeat(`{"data": "many"}`+"\n", 100)))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
	}
	p.publish("prices", "text/plain", strings.Repeat("long", 200_000)+"end")
	p.wait(tailed + `.at(-1).endsWith("… (800,003 characters)")`)
	p.wait(`document.querySelectorAll("#tail p").length == 500`)

	// Closing, after a question.
	p.fill("#of-user", "<b>bad</b>")
	p.wait(connections + `.length == 1`)
	p.run(chromedp.Click(chromedp.CSS("#connections tbody button")), chromedp.WaitVisible(chromedp.CSS("#confirm")), chromedp.Click(chromedp.CSS("#keep")))
	p.wait(`!document.querySelector("#confirm").open`)
	p.run(chromedp.Click(chromedp.CSS("#connections tbody button")), chromedp.WaitVisible(chromedp.CSS("#confirm")), chromedp.Click(chromedp.CSS("#close")))
	bad.wantsClose(websocket.StatusPolicyViolation)
	p.wait(connections + `.length == 0`)
	p.noProblems()
}

func quoted(s string) string {
	b, _ := json.Marshal(s)
	return string(b)
}

// TestUIMore: of a long list the first hundred are shown.
func TestUIMore(t *testing.T) {
	p := inspect(t)
	var lines strings.Builder
	for i := range 250 {
		fmt.Fprintf(&lines, `{"channel": "room:%03d", "data": 1}`+"\n", i)
	}
	resp, err := http.Post("http://"+p.admin+"/broadcast/publish", "application/x-ndjson", strings.NewReader(lines.String()))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	p.open()
	const rows, more = `document.querySelectorAll("#channels tbody tr").length`, `document.querySelector("#channels ~ .more")`
	p.wait(rows + ` == 100 && !` + more + `.hidden`)
	p.run(chromedp.Click(chromedp.CSS("#channels ~ .more")))
	p.wait(rows + ` == 200`)
	p.run(chromedp.Click(chromedp.CSS("#channels ~ .more")))
	p.wait(rows + ` == 250 && ` + more + `.hidden`)
	p.noProblems()
}

// TestUIKeyboard: filter, publish and close, without a mouse.
func TestUIKeyboard(t *testing.T) {
	p := inspect(t)
	p.connect("news", "ann")
	ben := p.connect("news", "ben")
	p.open()
	p.tab("#of-user")
	p.run(chromedp.KeyEvent("ben"))
	p.wait(`document.querySelectorAll("#connections tbody tr").length == 1`)

	p.tab("#channel")
	p.run(chromedp.KeyEvent("news"))
	p.tab("#data")
	p.run(chromedp.KeyEvent("a", chromedp.KeyModifiers(kb.ModifierCtrl)), chromedp.KeyEvent("by hand"))
	p.tab("#publish .main")
	p.run(chromedp.KeyEvent(" "))
	ben.wants("by hand")
	p.wait(`document.querySelector("#published").textContent.endsWith(", to 2 clients")`)
	p.run(chromedp.KeyEvent("\t", chromedp.KeyModifiers(kb.ModifierShift)), chromedp.KeyEvent("\t", chromedp.KeyModifiers(kb.ModifierShift)))
	p.run(chromedp.KeyEvent(kb.End+"!"), chromedp.KeyEvent("\r", chromedp.KeyModifiers(kb.ModifierCtrl)))
	ben.wants("by hand!")

	p.tab("#connections tbody button")
	p.run(chromedp.KeyEvent("\r"))
	p.wait(`document.activeElement.matches("#confirm[open] #keep")`)
	p.run(chromedp.KeyEvent(kb.Escape))
	p.wait(`document.activeElement.matches("#connections tbody button")`)
	p.run(chromedp.KeyEvent("\r"))
	p.wait(`document.activeElement.matches("#keep")`)
	p.run(chromedp.KeyEvent(kb.Tab), chromedp.KeyEvent("\r"))
	ben.wantsClose(websocket.StatusPolicyViolation)
	p.wait(`document.querySelectorAll("#connections tbody tr").length == 0 && document.activeElement.matches("#of-user")`)
	p.noProblems()
}

// TestUIOrigins: what the README has one configure lets in nobody else.
func TestUIOrigins(t *testing.T) {
	p := inspect(t)
	ann := p.connect("default", "ann")
	p.run(chromedp.Navigate("http://"+p.addr), chromedp.Evaluate[chromedp.Void](fmt.Sprintf(`
		const to = "http://%s/broadcast"
		const answers = Promise.all([
			fetch(to),
			fetch(to, { referrerPolicy: "no-referrer" }),
			fetch(to + "/publish", { method: "POST", body: "other" }),
			fetch(to + "/publish", { method: "POST", body: "other", referrerPolicy: "no-referrer" }),
			fetch(to + "/connections/c1", { method: "DELETE" }),
			fetch(to + "/publish", { method: "POST", body: "other", mode: "no-cors" }),
			fetch(to + "/publish", { method: "POST", body: "other", mode: "no-cors", referrerPolicy: "no-referrer" }),
		].map(p => p.then(r => r.type, () => "refused")))
		let got
		answers.then(a => got = a.join())`, p.admin)))
	p.wait(`got == "refused,refused,refused,refused,refused,opaque,opaque"`)
	for policy, status := range map[string]int64{"no-referrer": http.StatusBadRequest, "unsafe-url": http.StatusForbidden} {
		got, err := chromedp.Run(p.ctx, chromedp.WaitEvent(network.ResponseReceived, func(e network.EventResponseReceived) bool {
			return strings.HasSuffix(e.Response.URL, "/broadcast/publish?"+policy)
		}, chromedp.Evaluate[chromedp.Void](fmt.Sprintf(`
			document.head.innerHTML = '<meta name="referrer" content="%[1]s">'
			document.body.innerHTML = '<iframe name="%[1]s"></iframe><form method="post" target="%[1]s" action="http://%[2]s/broadcast/publish?%[1]s"><input name="data" value="other"></form>'
			document.forms[0].submit()`, policy, p.admin))))
		if err != nil {
			t.Fatal(err)
		}
		if got.Response.Status != status {
			t.Errorf("a form of another origin (%s): %d", policy, got.Response.Status)
		}
	}
	p.publish("default", "text/plain", "ours")
	ann.wants("ours")
}

// TestUIScreenshot takes the README's picture.
func TestUIScreenshot(t *testing.T) {
	if os.Getenv("SCREENSHOTS") != "1" {
		t.Skip("SCREENSHOTS=1 writes docs/inspector.png")
	}
	p := inspect(t, chromedp.Flag("hide-scrollbars", true))
	p.run(chromedp.EmulateViewport(1200, 800))
	for i, user := range []string{"ann", "ben", "carla", "", "dmitri", "emi", "fatou", "", "goran", "hana"} {
		p.connect([]string{"prices", "chat", "news", "orders"}[i%4], user)
	}
	p.open()
	says := []struct {
		channel, event, contentType string
		data                        func(int) string
	}{
		{"prices", "tick", "application/json", func(n int) string { return fmt.Sprintf(`{"symbol":"ACME","price":%d.%02d}`, n, 97*n%100) }},
		{"orders", "update", "application/json", func(n int) string { return fmt.Sprintf(`{"order":%d,"state":"shipped"}`, 4000+n) }},
		{"prices", "tick", "application/json", func(n int) string { return fmt.Sprintf(`{"symbol":"GLOBEX","price":%d.5}`, 3*n) }},
		{"chat", "", "text/plain", func(n int) string { return fmt.Sprintf("ann: has anyone seen build %d?", n) }},
		{"prices", "tick", "application/json", func(n int) string { return fmt.Sprintf(`{"symbol":"INITECH","price":%d.25}`, n/2) }},
		{"chat", "", "text/plain", func(int) string { return "ben: yes, and it is <b>green</b>" }},
		{"news", "", "text/plain", func(n int) string { return fmt.Sprintf("Release 1.%d is out", n) }},
	}
	stop, done := make(chan struct{}), make(chan struct{})
	defer func() { close(stop); <-done }()
	go func() {
		defer close(done)
		for n := 0; ; n++ {
			select {
			case <-stop:
				return
			default:
			}
			m := says[n%len(says)]
			query := url.Values{"channel": {m.channel}, "event": {m.event}}
			resp, err := http.Post("http://"+p.admin+"/broadcast/publish?"+query.Encode(), m.contentType, strings.NewReader(m.data(40+n%50)))
			if err != nil {
				return
			}
			resp.Body.Close()
			x := float64(n) / 170
			time.Sleep(time.Duration(float64(time.Second) / (24 + 9*math.Sin(x) + 5*math.Sin(3.7*x) + 3*math.Sin(9.1*x))))
		}
	}()
	for n := 20; n <= 120; n += 20 {
		p.wait(fmt.Sprintf(`document.querySelector("#totals .curve").getAttribute("d").split("L").length >= %d`, n))
	}
	p.fill("#channel", "prices")
	p.fill("#event", "tick")
	p.run(chromedp.Click(chromedp.CSS(`[name=kind][value=json]`)))
	p.fill("#data", `{"symbol": "ACME", "price": 43.5}`)
	p.run(chromedp.Click(chromedp.CSS("#publish .main")))
	p.wait(`document.querySelector("#published").textContent != ""`)
	p.run(chromedp.Evaluate[chromedp.Void](`document.activeElement.blur(); undefined`))
	for _, scheme := range []string{"light", "dark"} {
		_, err := chromedp.Call(p.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
		})
		if err != nil {
			t.Fatal(err)
		}
		picture, err := chromedp.Run(p.ctx, chromedp.CaptureScreenshot())
		if err != nil {
			t.Fatal(err)
		}
		if picture, err = shrink(picture); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join("..", "..", "docs", "inspector.png")
		if scheme == "dark" {
			path = filepath.Join(os.TempDir(), "inspector-dark.png")
			t.Log("the dark one is ", path)
		}
		if err := os.WriteFile(path, picture, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	p.noProblems()
}

// shrink leaves a picture the 256 colours that it has most of.
func shrink(picture []byte) ([]byte, error) {
	m, err := png.Decode(bytes.NewReader(picture))
	if err != nil {
		return nil, err
	}
	counts := make(map[color.Color]int)
	size := m.Bounds()
	for y := range size.Dy() {
		for x := range size.Dx() {
			counts[m.At(x, y)]++
		}
	}
	colors := slices.SortedFunc(maps.Keys(counts), func(a, b color.Color) int { return counts[b] - counts[a] })
	few := image.NewPaletted(size, colors[:min(256, len(colors))])
	draw.Draw(few, size, m, image.Point{}, draw.Src)
	var b bytes.Buffer
	err = (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&b, few)
	return b.Bytes(), err
}
