package browser

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/audits"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/coder/websocket"

	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
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

func inspect(t *testing.T, more ...chromedp.ExecAllocatorOption) *inspector {
	t.Helper()
	p := &inspector{t: t, ctx: chromium.Open(t, more...), addr: "localhost:" + caddytest.FreePort(t), admin: "localhost:" + caddytest.FreePort(t)}
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
		broadcast /members {query.channel} {
			user {query.user}
			expires {query.until}
			presence 0
			member {query.member}
		}
		header Content-Type text/html
		respond "<!doctype html><title>Another origin</title><p>Hello"
	}`, p.admin, p.addr)
	caddytest.Run(t, config)
	err := chromedp.Listen(p.ctx, func(ev any) {
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
	return p.dial(fmt.Sprintf("/ws/%s?user=%s", channel, user))
}

func (p *inspector) dial(path string) *client {
	p.t.Helper()
	conn, _, err := websocket.Dial(p.t.Context(), "ws://"+p.addr+path, nil)
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
	tailed = `[...document.querySelectorAll("#tail > :not([hidden], .more)")].map(e => (e.querySelector(".text") ?? e).textContent)`
)

func quoted(s string) string {
	b, _ := json.Marshal(s)
	return string(b)
}
