package browser

import (
	"fmt"
	"net/http"
	"os/exec"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/coder/websocket"
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
