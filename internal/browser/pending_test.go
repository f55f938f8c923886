package browser

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/chromedp/chromedp"
)

// TestClientTooLong: a message that is longer than a frame may be, which closes the connection, ends with an error. It is
// not repeated, and the next one goes through.
func TestClientTooLong(t *testing.T) {
	_, p := openClient(t, "broadcast /ws")
	p.run(chromedp.Evaluate[chromedp.Void](`
		hub.publish("x".repeat(200_000)).catch(e => seen.rejected = [e instanceof Error, e.code, e.status, e.message.length > 0])
		undefined`))
	p.wait("seen.rejected")
	if got := evaluate[string](p, "JSON.stringify(seen.rejected)"); got != `[true,"error",1009,true]` {
		t.Errorf("it ends with %s", got)
	}
	// What was asked before it is done, what was asked behind it is not, and each is told so.
	p.run(chromedp.Evaluate[chromedp.Void](`
		seen.states.length = seen.got.length = 0
		const data = [...Array(50).keys()].map(String)
		Promise.allSettled([...data, "x".repeat(200_000), "behind"].map(data => hub.publish(data))).then(all => seen.all = all.map(r => r.status))
		undefined`))
	p.wait(`seen.all && seen.got.length >= 50 && hub.state == "open"`)
	if got := evaluate[string](p, `[seen.all.slice(0, 50).every(s => s == "fulfilled"), seen.all.slice(50), seen.got.length].join()`); got != "true,rejected,rejected,50" {
		t.Errorf("got %s", got)
	}
	p.run(chromedp.Evaluate[chromedp.Void](`hub.publish("short").then(id => seen.id = id); undefined`))
	p.wait(`seen.id && seen.got.at(-1) == "default:short" && hub.state == "open"`)
	if got := evaluate[int](p, `seen.states.filter(s => s == "waiting").length`); got != 1 {
		t.Errorf("the connection was lost %d times", got)
	}
}

// TestClientPublishInCallback: what is published as the state changes waits for the connection.
func TestClientPublishInCallback(t *testing.T) {
	s, p := openClient(t, "broadcast /ws")
	p.run(chromedp.Evaluate[chromedp.Void](`
		seen.ids = []
		hub.onstate = state => {
			seen.states.push(state)
			hub.publish(state).then(id => seen.ids.push(id), e => seen.errors.push(e.message))
		}
		undefined`))
	s.cut()
	p.wait("seen.ids.length + seen.errors.length == 3")
	if got := evaluate[string](p, "JSON.stringify([seen.states, seen.errors])"); got != `[["open","waiting","connecting","open"],[]]` {
		t.Errorf("got %s", got)
	}
}

// TestClientReconnectBlocked: who was refused, logs in and reconnects gets in also where WebSockets are blocked, and is
// not refused once more by the answer from before.
func TestClientReconnectBlocked(t *testing.T) {
	// A file, and not a reload: the old servers of a reload still answer on connections that a browser has opened in
	// advance, because Shutdown leaves new ones alone (net/http, Server.Shutdown).
	dir := t.TempDir()
	_, p := openClient(t, `@blocked {
			path /blocked
			header Connection *Upgrade*
		}
		error @blocked 403
		@out {
			path /blocked
			not file {
				root `+dir+`
				try_files /in
			}
		}
		error @out "log in first" 401
		broadcast /ws
		broadcast /blocked`)
	connectTo(p, "/blocked")
	p.wait(`hub.state == "refused" && other.rejected.length == 1`)
	if err := os.WriteFile(filepath.Join(dir, "in"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	p.run(chromedp.Evaluate[chromedp.Void](`other.states.length = 0; hub.reconnect(); publish("at last"); undefined`))
	p.wait(`other.published || other.states.includes("refused")`)
	if got := evaluate[string](p, `JSON.stringify([other.states.includes("refused"), other.errors.length])`); got != "[false,1]" {
		t.Errorf("got %s", got)
	}
}
