package browser

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"
	"github.com/coder/websocket"
)

// connectTo has the page connect once more, with what is seen of the hub in the global object other.
func connectTo(p page, path string) {
	p.t.Helper()
	p.run(chromedp.Evaluate[chromedp.Void](fmt.Sprintf(`
		globalThis.other = null
		import("/ws?client").then(({ connect }) => {
			globalThis.hub = connect(%q)
			globalThis.other = { states: [], errors: [], rejected: [] }
			hub.onstate = s => other.states.push(s)
			hub.onerror = e => other.errors.push(e)
			globalThis.publish = data => hub.publish(data).then(
				id => other.published = id, e => other.rejected.push([e instanceof Error, e.code, e.status ?? 0, e.message]))
			publish("pending")
		})
		undefined`, path)))
	p.wait("globalThis.other != null")
}

// TestClientRefused: a client that is refused says why, with the route's own words, and rejects what it was to publish. It
// stays away until it is told to reconnect.
func TestClientRefused(t *testing.T) {
	const open = "broadcast /ws\n"
	s, p := openClient(t, open+`
		respond /401 "log in first" 401
		respond /403 "<h1>not yours</h1>" 403
		respond /line "not today
and not tomorrow
" 403`)
	config := s.config
	for _, test := range []struct {
		path    string
		status  int
		message string
	}{
		{"/401", 401, "log in first"},
		{"/403", 403, "forbidden"}, // HTML is nothing for a message
		{"/404", 404, "forbidden"},
		{"/line", 403, "not today"}, // as the route's own words end with a line break
	} {
		connectTo(p, test.path)
		p.wait(`hub.state == "refused" && other.rejected.length == 1`)
		want := fmt.Sprintf(`[[{"code":"forbidden","status":%d,"message":%q}],[[true,"forbidden",%[1]d,%[2]q]]]`, test.status, test.message)
		if got := evaluate[string](p, "JSON.stringify([other.errors, other.rejected])"); got != want {
			t.Errorf("%s: got %s, not %s", test.path, got, want)
		}
		p.run(chromedp.Evaluate[chromedp.Void](`
			other.rejected.length = other.states.length = 0
			publish("too late")
			dispatchEvent(new Event("online"))
			setTimeout(() => other.later = true, 300)
			undefined`))
		p.wait(`other.later && other.rejected.length == 1`)
		if got := evaluate[string](p, "JSON.stringify([other.states, other.rejected])"); got != `[[],[[true,"refused",0,"refused"]]]` {
			t.Errorf("%s: afterwards %s", test.path, got)
		}

		s.config = strings.Replace(config, open, open+"broadcast "+test.path+"\n", 1)
		s.start()
		p.run(chromedp.Evaluate[chromedp.Void](`hub.reconnect(); publish("at last"); undefined`))
		p.wait(`hub.state == "open" && other.published`)
		s.config = config
		s.start()
		p.run(chromedp.Evaluate[chromedp.Void](`hub.close(); undefined`))
	}
}

// TestClientNotRefused: other answers are told, and the client tries again until it is let in.
func TestClientNotRefused(t *testing.T) {
	const open = "broadcast /ws\n"
	s, p := openClient(t, open+`respond /busy "come back later" 503`)
	p.run(chromedp.Evaluate[chromedp.Void](`Math.random = () => Number.MIN_VALUE; undefined`))
	connectTo(p, "/busy")
	p.wait("other.errors.length > 2")
	if got := evaluate[string](p, "JSON.stringify(other.errors[0])"); got != `{"code":"error","status":503,"message":"come back later"}` {
		t.Errorf("the error is %s", got)
	}
	s.config = strings.Replace(s.config, open, open+"broadcast /busy\n", 1)
	s.start()
	p.wait(`hub.state == "open" && other.published && other.rejected.length == 0`)
}

// TestClientRefusedOnce: that HTTP refuses is believed when the next connection fails too. The one before may have failed
// as the server was just starting, on a route that takes WebSockets alone.
func TestClientRefusedOnce(t *testing.T) {
	var sockets atomic.Int32
	asked := make(chan struct{}, 10)
	backend := fakeRoute(t, func(w http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get("Upgrade") == "" {
			defer func() { asked <- struct{}{} }()
			http.Error(w, "no such page", http.StatusNotFound)
			return true
		}
		if sockets.Add(1) == 1 {
			w.WriteHeader(http.StatusBadGateway)
			return true
		}
		select {
		case <-asked: // the answer over HTTP comes first
		case <-r.Context().Done():
		}
		return false
	}, 0)
	_, p := openClient(t, "broadcast /ws\nreverse_proxy /fake "+backend)
	connectTo(p, "/fake")
	p.wait(`hub.state == "open"`)
	if got := evaluate[string](p, "JSON.stringify(other.errors)"); got != "[]" {
		t.Errorf("it was told of %s", got)
	}
}

// TestClientCloseCodes: close codes from 4400 to 4499 keep a client away, and others do not.
func TestClientCloseCodes(t *testing.T) {
	for _, test := range []struct {
		code  websocket.StatusCode
		error string
	}{
		{4399, ""},
		{4400, `[{"code":"forbidden","status":4400,"message":"because"}]`},
		{4499, `[{"code":"forbidden","status":4499,"message":"because"}]`},
	} {
		t.Run(fmt.Sprint(test.code), func(t *testing.T) {
			backend := fakeRoute(t, nil, test.code)
			_, p := openClient(t, "broadcast /ws\nreverse_proxy /fake "+backend)
			connectTo(p, "/fake")
			if test.error == "" {
				p.wait(`other.states.filter(s => s == "open").length > 1 && other.errors.length == 0`)
				return
			}
			p.wait(`hub.state == "refused" && other.rejected.length == 1`)
			if got := evaluate[string](p, "JSON.stringify(other.errors)"); got != test.error {
				t.Errorf("the errors are %s, not %s", got, test.error)
			}
		})
	}
}

// fakeRoute serves WebSockets that get a hello, and are then closed with a code, if there is one. First may answer
// requests instead.
func fakeRoute(t *testing.T, first func(http.ResponseWriter, *http.Request) bool, code websocket.StatusCode) (address string) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if first != nil && first(w, r) {
			return
		}
		c, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{"broadcast.v1"}})
		if err != nil {
			return
		}
		defer c.CloseNow()
		c.Write(r.Context(), websocket.MessageText, []byte(`[{"hello":{"connection":"c1","channels":["default"],"id":"A-1","heartbeat":25}}]`))
		if code != 0 {
			c.Close(code, "because")
			return
		}
		for err == nil { // what the client publishes
			_, _, err = c.Read(r.Context())
		}
	}))
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}

// TestClientBrowserOffline: a browser that loses its network is offline at once, and back as soon as the network is.
func TestClientBrowserOffline(t *testing.T) {
	s, p := openClient(t, "broadcast /ws")
	p.run(chromedp.Evaluate[chromedp.Void](`Math.random = () => .999; undefined`))
	n := &numbers{s: s, next: map[string]int{}}
	n.publish(t, 3, "default")
	n.expect(p)
	turn := func(offline bool) {
		t.Helper()
		if _, err := chromedp.Call(p.ctx, network.OverrideNetworkState, network.OverrideNetworkStateParams{Offline: offline, DownloadThroughput: -1, UploadThroughput: -1}); err != nil {
			t.Fatal(err)
		}
	}
	turn(true)
	s.shut()
	p.wait(`!navigator.onLine && hub.state == "offline" && seen.states.includes("offline")`)
	n.publish(t, 3, "default")
	s.open()
	turn(false)
	n.expect(p)
	p.wait(`hub.state == "open"`)
	if evaluate[bool](p, `seen.errors.length > 0`) {
		t.Errorf("seen: %s", evaluate[string](p, "JSON.stringify(seen)"))
	}
}

// TestClientPostRefused: a POST that is refused ends its publish and not the event stream; one that a server could not
// take is repeated, and those behind it wait for it.
func TestClientPostRefused(t *testing.T) {
	_, p := openClient(t, `@upgrade header Connection *Upgrade*
		error @upgrade 403
		@refused {
			method POST
			header Refuse yes
		}
		error @refused 403
		broadcast /ws`)
	p.run(chromedp.Evaluate[chromedp.Void](`
		seen.states.length = 0
		const original = fetch
		globalThis.fetch = (url, options) => original(url, { ...options, headers: { refuse: "yes" } })
		hub.publish("refused").catch(e => {
			seen.rejected = [e instanceof Error, e.code, e.status, e.message]
			let n = 0
			globalThis.fetch = (url, options) => ++n < 3 ? Promise.resolve(new Response("busy", { status: 503 }))
				: n < 5 ? Promise.reject(new TypeError("reset")) : original(url, options)
			return Promise.all(["a", "b", "c"].map(data => hub.publish(data))).then(ids => seen.ids = ids)
		})
		undefined`))
	p.wait("seen.ids?.length == 3 && seen.got.length == 3")
	want := `[[true,"forbidden",403,"forbidden"],["default:a","default:b","default:c"],[],[]]`
	if got := evaluate[string](p, "JSON.stringify([seen.rejected, seen.got, seen.states, seen.errors])"); got != want {
		t.Errorf("got %s, not %s", got, want)
	}
}

// TestClientEarly: what is asked between the start of a connection and its hello is not answered by that hello.
func TestClientEarly(t *testing.T) {
	_, p := openClient(t, `@blocked {
			path /blocked
			header Connection *Upgrade*
		}
		error @blocked 403
		broadcast /ws {
			join room:*
		}
		broadcast /blocked {
			join room:*
		}`)
	for _, path := range []string{"/ws", "/blocked"} {
		p.run(chromedp.Evaluate[chromedp.Void](fmt.Sprintf(`
			globalThis.hub?.close()
			globalThis.early = []
			import("/ws?client").then(({ connect }) => {
				globalThis.hub = connect(%q)
				hub.on("*", (data, m) => early.push(m.channel + ":" + data))
				for (const channel of ["room:1", "room:2"])
					hub.join(channel).then(() => hub.publish("hello", { channel })).catch(e => early.push(e.message))
			})
			undefined`, path)))
		p.wait(`early.length == 2`)
		if got := evaluate[string](p, "early.sort().join()"); got != "room:1:hello,room:2:hello" {
			t.Errorf("%s: got %s", path, got)
		}
	}
}
