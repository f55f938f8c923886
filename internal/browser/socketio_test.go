package browser

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/caddy-broadcast/caddy-broadcast/internal/chromium"
)

// socketIOPage is a page as the manual of Socket.IO has it. It opens nothing by itself, because tests choose how.
const socketIOPage = `<!doctype html><title>Socket.IO</title><script src="/socket.io/socket.io.js"></script><script>
globalThis.seen = []
function open(options, url) {
	const s = globalThis.socket = io(url, { forceNew: true, reconnectionDelay: 10, ...options })
	s.on("connect", () => seen.push("connect " + s.recovered))
	s.on("disconnect", why => seen.push("disconnect " + why))
	s.on("connect_error", e => seen.push("error " + e.message))
	s.on("message", data => seen.push(typeof data == "string" ? data : JSON.stringify(data)))
	s.on("bytes", data => seen.push("bytes " + new Uint8Array(data)))
}
const by = () => socket.connected && socket.io.engine.transport.name
</script>`

// TestSocketIO: the page of Socket.IO's manual works, with the script that the route serves, by each transport. When its
// connection is cut it goes on where it was.
func TestSocketIO(t *testing.T) {
	p := page{t, chromium.Open(t)}
	s := serve(t, socketIOPage, "broadcast /socket.io/* {\nsocketio\njoin room:*\nping_interval 1s\n}")
	for _, c := range []struct{ script, options, transport string }{
		{"socket.io.js", `{transports: ["polling"]}`, "polling"},
		{"socket.io.min.js", `{transports: ["websocket"]}`, "websocket"},
		{"socket.io.esm.min.js", `{}`, "websocket"}, // it moves
	} {
		p.run(chromedp.Navigate("http://" + s.addr))
		p.wait("typeof io == 'function'")
		if c.script == "socket.io.esm.min.js" {
			evaluate[int](p, `import("/socket.io/socket.io.esm.min.js").then(m => { globalThis.io = m.io; globalThis.imported = true }); 1`)
			p.wait("globalThis.imported")
		}
		evaluate[int](p, "open("+c.options+"); 1")
		p.wait("by() == '" + c.transport + "'")
		s.publish(t, "1")
		p.wait("seen.at(-1) == '1'")
		evaluate[int](p, `socket.emit("bytes", Uint8Array.of(1, 2, 255)); 1`)
		p.wait("seen.at(-1) == 'bytes 1,2,255'")
		evaluate[int](p, `socket.emit("join", "room:a", answer => globalThis.joined = answer); 1`)
		p.wait("globalThis.joined?.id")
		s.publishOn(t, "room:a", "2")
		p.wait("seen.at(-1) == '2'")

		id := evaluate[string](p, "socket.id")
		s.shut() // so that it cannot come back before there is something to recover
		p.wait("!socket.connected")
		s.publishOn(t, "room:a", "3")
		s.publish(t, "4")
		s.open()
		p.wait("seen.at(-1) == '4' && by() == '" + c.transport + "'")
		got := evaluate[[]string](p, `seen.filter(s => !s.startsWith("error"))`)
		closed := got[4] // "transport close" or "transport error"
		want := fmt.Sprint([]string{"connect false", "1", "bytes 1,2,255", "2", closed, "connect true", "3", "4"})
		if fmt.Sprint(got) != want || evaluate[string](p, "socket.id") != id {
			t.Errorf("%s: the page saw %q", c.transport, got)
		}
		evaluate[int](p, "socket.disconnect(); 1")
		p.wait("seen.at(-1) == 'disconnect io client disconnect'")
	}
}

// TestSocketIOElsewhere: a page of another origin that may use the route loads the script, polls with its cookies and headers of
// its own, moves to a WebSocket, and goes on after a cut. A page that may not is refused.
func TestSocketIOElsewhere(t *testing.T) {
	p := page{t, chromium.Open(t)}
	var caddy string
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, strings.Replace(socketIOPage, `src="`, `src="http://`+caddy, 1))
	}))
	t.Cleanup(elsewhere.Close)
	s := serve(t, socketIOPage, `broadcast /socket.io/* {
		socketio
		greeting "hello {http.request.cookie.visitor}"
		origins `+elsewhere.URL+`
	}`)
	caddy = s.addr
	p.run(chromedp.Navigate("http://"+s.addr), chromedp.Evaluate[chromedp.Void](`document.cookie = "visitor=ann"; undefined`))
	for _, c := range []struct{ options, transport string }{
		{`{transports: ["polling"], withCredentials: true, extraHeaders: {"x-token": "1"}}`, "polling"},
		{`{withCredentials: true}`, "websocket"},
	} {
		p.run(chromedp.Navigate(elsewhere.URL))
		p.wait("typeof io == 'function'")
		evaluate[int](p, fmt.Sprintf("open(%s, 'http://%s'); 1", c.options, s.addr))
		p.wait("by() == '" + c.transport + "' && seen.at(-1) == 'hello ann'")
		id := evaluate[string](p, "socket.id")
		s.shut()
		p.wait("!socket.connected")
		s.publish(t, "missed")
		s.open()
		p.wait("seen.at(-1) == 'missed' && by() == '" + c.transport + "'")
		if evaluate[string](p, "socket.id") != id {
			t.Error(c.transport, "it has begun anew")
		}
		evaluate[int](p, `socket.emit("e", 1, answer => globalThis.answer = answer); 1`)
		p.wait("globalThis.answer?.id")
	}
	p.run(chromedp.Navigate(strings.Replace(elsewhere.URL, "127.0.0.1", "localhost", 1)))
	p.wait("typeof io == 'function'")
	for _, transport := range []string{"polling", "websocket"} {
		evaluate[int](p, fmt.Sprintf("seen.length = 0; open({transports: ['%s'], reconnection: false}, 'http://%s'); 1", transport, s.addr))
		p.wait("seen.length > 0")
		if got := evaluate[string](p, "seen[0]"); !strings.HasPrefix(got, "error ") {
			t.Errorf("%s by a page that may not: %s", transport, got)
		}
	}
}
