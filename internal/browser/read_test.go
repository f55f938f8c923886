package browser

import (
	"fmt"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// What the page shows of the message that is unfolded.
const unfolded = `document.querySelector("details[open] pre")?.textContent`

// TestUIRead: a message is folded to a few lines, and unfolds to all of it, with JSON indented. Live messages wait meanwhile.
func TestUIRead(t *testing.T) {
	p := inspect(t)
	p.open()
	p.publish("orders", "application/json", `{"order":42,"lines":[{"sku":"a<b","n":1}]}`)
	p.wait(tailed + `.join() == '{"order":42,"lines":[{"sku":"a<b","n":1}]}'`)
	p.run(chromedp.Click(chromedp.CSS("#tail summary")))
	p.wait(unfolded + " == `{\n  \"order\": 42,\n  \"lines\": [\n    {\n      \"sku\": \"a<b\",\n      \"n\": 1\n    }\n  ]\n}`")
	p.wait(`document.querySelector(".unfolded p")?.textContent.includes("orders")`)
	p.wait(`document.querySelector("#pause").textContent == "Resume"`)
	for _, c := range []struct{ name, contentType, data, text, whole string }{
		{"text that is JSON", "text/plain", `{"a":[1]}`, `{"a":[1]}`, "{\n  \"a\": [\n    1\n  ]\n}"},
		{"a number that JavaScript would round", "text/plain", `{"id":12345678901234567890}`, `{"id":12345678901234567890}`, `{"id":12345678901234567890}`},
		{"text that only begins like JSON", "text/plain", "[info] started", "[info] started", "[info] started"},
		{"lines", "text/plain", "one\ntwo\nthree\nfour\nfive", "one\ntwo\nthree\nfour\nfive", "one\ntwo\nthree\nfour\nfive"},
		{"binary", "application/octet-stream", "\x00\x01\x02", "base64 AAEC", "AAEC"},
		{"a long one", "text/plain", strings.Repeat("x", 60_000), strings.Repeat("x", 2000) + "… (60,000 characters)", strings.Repeat("x", 50_000) + "… (60,000 characters)"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := &inspector{t: t, ctx: p.ctx, addr: p.addr, admin: p.admin}
			p.publish("orders", c.contentType, c.data)
			p.wait(`document.querySelector("#pause").textContent == "Resume (1)"`)
			p.run(chromedp.Click(chromedp.CSS("#pause")))
			p.wait(tailed + `.at(-1) == ` + quoted(c.text))
			p.wait(`[...document.querySelectorAll("summary .text")].every(e => e.clientHeight <= 66)`)
			p.run(chromedp.Evaluate[chromedp.Void](`document.querySelectorAll("details").forEach(e => e.open = false); document.querySelector("details:last-child > summary").click()`))
			p.wait(unfolded + ` == ` + quoted(c.whole))
		})
	}
	t.Run("by keyboard", func(t *testing.T) {
		readByKeyboard(&inspector{t: t, ctx: p.ctx, addr: p.addr, admin: p.admin})
	})
	p.noProblems()
}

// readByKeyboard: the tabulator stops once at the messages, and the arrow keys move through them.
func readByKeyboard(p *inspector) {
	p.open() // anew, without messages
	for i := range 3 {
		p.publish("news", "text/plain", fmt.Sprint("message ", i))
	}
	p.wait(tailed + `.length == 3`)
	focused := func(text string) {
		p.t.Helper()
		p.wait(`document.activeElement.querySelector(".text")?.textContent == "` + text + `"`)
	}
	p.tab("#tail")
	p.run(chromedp.KeyEvent(kb.Tab))
	p.wait(`!document.querySelector("#tail").contains(document.activeElement)`)
	p.run(chromedp.KeyEvent(kb.Tab, chromedp.KeyModifiers(kb.ModifierShift)), chromedp.KeyEvent(kb.ArrowUp))
	focused("message 2")
	p.wait(`document.querySelector("#pause").textContent == "Resume"`)
	p.run(chromedp.KeyEvent(kb.ArrowUp))
	focused("message 1")
	p.run(chromedp.KeyEvent("\r"))
	p.wait(unfolded + ` == "message 1"`)
	p.run(chromedp.KeyEvent(kb.ArrowLeft))
	p.wait(`!document.querySelector("details[open]")`)
	p.run(chromedp.KeyEvent(kb.Home), chromedp.KeyEvent(kb.ArrowRight))
	p.wait(unfolded + ` == "message 0"`)
	p.run(chromedp.KeyEvent(kb.ArrowUp)) // there is none above
	focused("message 0")
	p.run(chromedp.KeyEvent(kb.End))
	focused("message 2")
	p.run(chromedp.KeyEvent(kb.Escape))
	p.wait(`document.activeElement.id == "tail"`)
	p.tab("#pause")
	p.run(chromedp.KeyEvent(" "))
	p.publish("news", "text/plain", "live again")
	p.wait(tailed + `.at(-1) == "live again"`)
}
