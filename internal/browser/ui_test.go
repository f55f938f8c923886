package browser

import (
	"fmt"
	"net/http"
	"net/url"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/coder/websocket"
)

// shown is an inspector with two clients, which has a page open for all subtests.
type shown struct {
	*inspector
	whole    *inspector // the one of the whole test, which has the problems
	ann, ben *client
}

// The rows that the lists show.
var (
	connectionRows = fmt.Sprintf(rowsOf, "connections")
	channelRows    = fmt.Sprintf(rowsOf, "channels")
)

// Of a stranger who has markup for a channel and for a name: as they are in a URL.
const markupChannel, markupUser = `%3Cimg%20src=x%20onerror=alert(1)%3E`, `%3Cb%3Ebad%3C%2Fb%3E`

// TestUI: the inspector shows the hub, safely, and what it does is done.
func TestUI(t *testing.T) {
	p := inspect(t)
	u := shown{p, p, p.connect("news", "ann"), p.connect("prices", "ben")}
	u.open()
	u.sub("totals and lists", shown.testLists)
	u.sub("markup of strangers is text", shown.testMarkup)
	u.sub("filters of the lists", shown.testListFilters)
	u.sub("publish text, and what does the same", shown.testPublish)
	u.sub("publish JSON, checked before it goes", shown.testPublishJSON)
	u.sub("a refusal is shown", shown.testRefusal)
	u.sub("filters of the tail", shown.testTailFilters)
	u.sub("pause of the tail", shown.testTailPause)
	u.sub("the tail is bounded", shown.testTailBounds)
	u.sub("close a connection after a question", shown.testClose)
	u.noProblems()
}

// sub runs a subtest, whose failures are its own.
func (u shown) sub(name string, test func(shown)) {
	u.t.Run(name, func(t *testing.T) {
		p := &inspector{t: t, ctx: u.ctx, addr: u.addr, admin: u.admin}
		test(shown{p, u.whole, &client{t, u.ann.messages, u.ann.closed}, &client{t, u.ben.messages, u.ben.closed}})
	})
}

// testLists expects two clients. The page itself is not one.
func (u shown) testLists() {
	u.wait(`document.querySelector("#totals dd").textContent == "2"`)
	u.wait(`document.querySelectorAll("#totals .curve[d]").length == 4`)
	u.wait(connectionRows + `.length == 2`)
	u.wait(channelRows + `.join() == "news|1|0,prices|1|0"`)
	if s := u.eval(connectionRows + `[0]`); !strings.Contains(s, "|ann|") || !strings.Contains(s, "|websocket|news|") {
		u.t.Errorf("the first connection is %q", s)
	}
}

func (u shown) testMarkup() {
	markup := `<img src=x onerror="document.title='hacked'"><script>document.title='hacked'</script>`
	u.publish("news", "text/plain", markup)
	u.ann.wants(markup)
	u.wait(tailed + `.length == 1`)
	if s := u.eval(tailed + `[0]`); s != markup {
		u.t.Errorf("the message is shown as %q", s)
	}
	u.connect(markupChannel, markupUser)
	u.wait(connectionRows + `.some(s => s.includes("|<b>bad</b>|") && s.includes("|<img src=x onerror=alert(1)>|"))`)
	u.wait(channelRows + `[0].startsWith("<img")`)
	if s := u.eval(`document.title + document.querySelectorAll("main img, main b, main script").length`); s != "Inspector · caddy-broadcast0" {
		u.t.Errorf("after markup: %q", s)
	}
}

func (u shown) testListFilters() {
	u.connect(markupChannel, markupUser)
	u.wait(connectionRows + `.length == 3`)
	u.fill("#prefix", "pri")
	u.wait(channelRows + `.join() == "prices|1|0"`)
	u.fill("#of-user", "ben")
	u.wait(connectionRows + `.length == 1`)
	u.fill("#of-user", "")
	u.fill("#of-channel", "news")
	u.wait(connectionRows + `.length == 1 && ` + connectionRows + `[0].includes("ann")`)
	u.fill("#of-channel", "")
	u.fill("#prefix", "")
	u.wait(connectionRows + `.length == 3`)
}

// testPublish fills in the form, and runs what it shows for a shell, for Python and for JavaScript.
func (u shown) testPublish() {
	nasty := "it's \"1\" `2` $HOME \\n <!-- é 😀 -->\n@data=3&data=%41"
	u.fill("#channel", "news")
	u.fill("#event", "it's")
	u.run(chromedp.SetValue(chromedp.CSS("#data"), nasty), chromedp.SendKeys(chromedp.CSS("#data"), kb.End+"!"))
	nasty += "!"
	u.run(chromedp.Click(chromedp.CSS("#publish .main")))
	u.ann.wants(nasty)
	u.wait(`/^\w+-\d+, to 1 client$/.test(document.querySelector("#published").textContent)`)
	u.runShown(nasty)
	u.wait(tailed + `.filter(s => s == ` + quoted(nasty) + `).length >= 2`)
	js := u.eval(`document.querySelector("#js").textContent`)
	if s := u.eval(`new Function("connect", ` + quoted(js) + `.replace(/^import.*\n/, "return "))(u => ({ publish: (...args) => JSON.stringify([u, ...args]) }))`); s !=
		u.eval(`JSON.stringify(["/ws", `+quoted(nasty)+`, { channel: "news", event: "it's" }])`) {
		u.t.Errorf("JavaScript publishes %s", s)
	}
}

// runShown runs the commands that the page shows, each of which publishes data to ann.
func (u shown) runShown(data string) {
	u.t.Helper()
	for _, c := range []struct{ name, option, element string }{
		{name: "sh", option: "-c", element: "#curl"},
		{name: "python3", option: "-c", element: "#python"},
	} {
		if _, err := exec.LookPath(c.name); err != nil {
			u.t.Logf("%s is not installed", c.name)
			continue
		}
		text := u.eval(`document.querySelector("` + c.element + `").textContent`)
		if out, err := exec.CommandContext(u.t.Context(), c.name, c.option, text).CombinedOutput(); err != nil {
			u.t.Fatalf("%s %q: %v: %s", c.name, text, err, out)
		}
		u.ann.wants(data)
	}
}

func (u shown) testPublishJSON() {
	u.fill("#channel", "news")
	u.fill("#event", "it's")
	u.fill("#data", "no JSON")
	u.run(chromedp.Click(chromedp.CSS(`[name=kind][value=json]`)))
	u.wait(`document.querySelector("#curl").textContent.startsWith("This is not valid JSON") && !document.querySelector("#data").validity.valid`)
	data := `{"__proto__": [1, "it's"]}`
	u.fill("#data", data)
	u.wait(`document.querySelector("#data").validity.valid`)
	u.run(chromedp.Click(chromedp.CSS("#publish .main")))
	u.ann.wants(data)
	u.runShown(data)
}

func (u shown) testRefusal() {
	u.fill("#channel", strings.Repeat("x", 256))
	u.fill("#data", `{"valid": "as JSON, and as text"}`)
	u.run(chromedp.Click(chromedp.CSS("#publish .main")))
	u.wait(`document.querySelector("#published.bad")?.textContent.includes("channel")`)
	u.whole.mu.Lock()
	defer u.whole.mu.Unlock()
	if n := len(u.whole.problems); n != 1 || !strings.Contains(u.whole.problems[0], "400") {
		u.t.Errorf("the browser's own line about the status 400 is not the only one: %q", u.whole.problems)
	}
	u.whole.problems = nil
}

func (u shown) testTailFilters() {
	u.fill("#tail-channel", "pri")
	u.wait(tailed + `.length == 0`)
	u.publish("prices", "application/json", `{"price": 3}`)
	u.publish("news", "text/plain", "no price")
	u.ben.wants(`{"price": 3}`)
	u.wait(tailed + `.join() == '{"price":3}'`)
	u.fill("#tail-channel", "")
	u.fill("#tail-text", "PRICE")
	u.wait(tailed + `.join() == '{"price":3},no price'`)
	u.fill("#tail-text", "")
}

func (u shown) testTailPause() {
	u.fill("#tail-text", "PAUSED")
	u.wait(tailed + `.length == 0`)
	u.publish("prices", "text/plain", "not paused")
	u.publish("news", "text/plain", "not paused either")
	u.wait(tailed + `.join() == 'not paused,not paused either'`)
	u.run(chromedp.Click(chromedp.CSS("#pause")))
	u.publish("news", "text/plain", "paused")
	u.wait(`document.querySelector("#pause").textContent == "Resume (1)"`)
	u.wait(tailed + `.length == 2`)
	u.run(chromedp.Click(chromedp.CSS("#pause")))
	u.wait(tailed + `.join() == 'not paused,not paused either,paused' && document.querySelector("#pause").textContent == "Pause"`)
	u.fill("#tail-text", "")
}

// testTailBounds: in how many messages are shown, and in what one message takes.
func (u shown) testTailBounds() {
	for range 6 {
		resp, err := http.Post("http://"+u.admin+"/broadcast/publish", "application/x-ndjson", strings.NewReader(strings.Repeat(`{"data": "many"}`+"\n", 100)))
		if err != nil {
			u.t.Fatal(err)
		}
		resp.Body.Close()
	}
	u.publish("prices", "text/plain", strings.Repeat("long", 200_000)+"end")
	u.wait(tailed + `.at(-1).endsWith("… (800,003 characters)")`)
	u.wait(`document.querySelectorAll("#tail > *").length == 500`)
}

func (u shown) testClose() {
	bad := u.connect(markupChannel, markupUser)
	u.fill("#of-user", "<b>bad</b>")
	u.wait(connectionRows + `.length == 1`)
	button, asked := chromedp.CSS("#connections tbody button"), chromedp.CSS("#confirm")
	u.run(chromedp.Click(button), chromedp.WaitVisible(asked), chromedp.Click(chromedp.CSS("#keep")))
	u.wait(`!document.querySelector("#confirm").open`)
	u.run(chromedp.Click(button), chromedp.WaitVisible(asked), chromedp.Click(chromedp.CSS("#close")))
	bad.wantsClose(websocket.StatusPolicyViolation)
	u.wait(connectionRows + `.length == 0`)
}

// TestUICloseFails: if a connection is not closed, the dialog reports no success, and says why.
func TestUICloseFails(t *testing.T) {
	p := inspect(t)
	p.connect("news", "ann")
	p.open()
	button := chromedp.CSS("#connections tbody button")
	p.run(chromedp.Click(button), chromedp.WaitVisible(chromedp.CSS("#confirm")))
	r, err := http.NewRequest(http.MethodDelete, "http://"+p.admin+"/broadcast/connections?user=ann", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatal(resp, err)
	}
	resp.Body.Close()
	p.run(chromedp.Click(chromedp.CSS("#close")))
	p.wait(`document.querySelector("#confirm").open && document.querySelector("#whose").textContent.includes("there is no such connection")`)
}

// TestUIChannel: of a channel that is selected, the inspector shows who is present, and the messages that are kept. It also
// shows when a connection's access ends. It is done on a phone.
func TestUIChannel(t *testing.T) {
	p := inspect(t)
	p.run(chromedp.EmulateViewport(360, 740))
	const channel = "room/<b>?"
	escaped := url.QueryEscape(channel)
	var lines strings.Builder
	for i := range 150 {
		fmt.Fprintf(&lines, `{"channel": %q, "data": "kept %d"}`+"\n", channel, i)
	}
	resp, err := http.Post("http://"+p.admin+"/broadcast/publish", "application/x-ndjson", strings.NewReader(lines.String()))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	member := func(query string) { p.dial("/members?channel=" + escaped + query) }
	member("&user=ann&until=" + fmt.Sprint(time.Now().Add(150*time.Minute).Unix()))
	member("&user=ben&until=never&member=" + url.QueryEscape(`{"name": "<i>B</i>"}`))
	member("&user=&until=never")
	p.connect("roo", "cy") // of which nobody knows
	p.open()
	const present = `document.querySelector("#present").textContent`
	p.fill("#of-channel", "roo") // with nobody present, and the beginning of another name
	p.wait(connectionRows + `.length == 1 && ` + present + ` == ""`)
	p.fill("#of-channel", "")
	p.run(chromedp.Evaluate[chromedp.Void](`[...document.querySelectorAll("#channels tbody button")].find(b => b.textContent == ` + quoted(channel) + `).click()`))
	p.wait(present + ` == '3 present: ann, ben {"name":"<i>B</i>"}'`)
	p.wait(connectionRows + `.length == 3 && ` + connectionRows + `.filter(s => s.includes(", expires in 2 h 29 min|")).length == 1`)

	p.run(chromedp.Click(chromedp.CSS("#history")))
	p.wait(tailed + `.length == 100 && ` + tailed + `[0] == "kept 50" && ` + tailed + `.at(-1) == "kept 149"`)
	p.publish(escaped, "text/plain", "new") // which waits
	p.wait(`document.querySelector("#pause").textContent == "Resume (1)"`)
	p.run(chromedp.Click(chromedp.CSS("#tail .more")))
	p.wait(tailed + `.length == 151 && ` + tailed + `[0] == "kept 0" && document.querySelector("#tail .more").hidden`)
	p.fill("#tail-text", "kept 14")
	p.wait(tailed + `.length == 11 && document.querySelector("#h-tail").textContent == "History"`)
	p.fill("#tail-text", "")
	p.run(chromedp.Click(chromedp.CSS("#pause")))
	p.wait(tailed + `.join() == "new" && document.querySelector("#h-tail").textContent == "Live"`)
	p.fill("#tail-channel", "")
	p.wait(`document.querySelector("#history").disabled`)
	p.wait(`document.documentElement.scrollWidth <= innerWidth`)
	p.noProblems()
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

// TestUIOrigins: what docs/admin.md has one configure lets in nobody else.
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
