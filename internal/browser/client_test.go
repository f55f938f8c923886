package browser

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/chromedp/cdproto/browser"
	"github.com/chromedp/chromedp"
	"github.com/coder/websocket"

	"github.com/caddy-broadcast/caddy-broadcast/internal/chromium"
)

// clientPage is under a policy that lets nothing in but the site's own files.
const clientPage = `<!doctype html><title>client</title><link rel="icon" href="data:,"><script type="module" src="app.js"></script>`

const policy = `header Content-Security-Policy "default-src 'none'; script-src 'self'; connect-src 'self'; img-src data:"
`

// clientScript has what a page sees of a hub in the global object seen.
const clientScript = `
import { connect } from "/ws?client"
globalThis.seen = { states: [], gaps: [], errors: [], got: [], events: [] }
globalThis.hub = connect("/ws")
hub.onstate = s => seen.states.push(s)
hub.ongap = g => seen.gaps.push(g)
hub.onerror = e => seen.errors.push(e)
hub.on("*", (data, m) => seen.got.push(m.channel + ":" + data))
hub.on("price", (data, m) => seen.events.push(m.event + " " + JSON.stringify(data)))
`

// openClient opens a page with the client.
func openClient(t *testing.T, directives string) (*site, page) {
	t.Helper()
	p := page{t, chromium.Open(t)}
	s := serve(t, clientPage, policy+directives)
	s.write("app.js", clientScript)
	p.run(chromedp.Navigate("http://" + s.addr))
	p.wait(`globalThis.hub?.state == "open"`)
	return s, p
}

// numbers publishes n messages on a channel, which say what comes next there.
type numbers struct {
	s    *site
	next map[string]int
	want []string
}

func (n *numbers) publish(t *testing.T, count int, channels ...string) {
	t.Helper()
	for range count {
		for _, channel := range channels {
			data := fmt.Sprint(n.next[channel])
			n.next[channel]++
			n.s.publishOn(t, channel, data)
			n.want = append(n.want, channel+":"+data)
		}
	}
}

func (n *numbers) expect(p page) {
	p.t.Helper()
	p.wait(fmt.Sprintf("seen.got.length >= %d", len(n.want)))
	if got := evaluate[[]string](p, "seen.got"); !slices.Equal(got, n.want) {
		p.t.Fatalf("got %q, not %q", got, n.want)
	}
}

// TestClient: the client misses nothing and repeats nothing when it is cut off, on the channels that it came for and
// on those that it has joined; and what it publishes arrives once.
func TestClient(t *testing.T) {
	s, p := openClient(t, "broadcast /ws {\n join room:*\n }")
	testClient(t, s, p, func(t *testing.T, p page) {
		if got := evaluate[[]string](p, "seen.states"); !slices.Equal(got[:4], []string{"open", "waiting", "connecting", "open"}) {
			t.Errorf("its states were %q", got)
		}
	})
	if evaluate[bool](p, `performance.getEntriesByType("resource").some(e => e.initiatorType == "eventsource")`) {
		t.Error("it fell back to event streams")
	}
}

// testClient has subtests with a page. afterCuts is for when it has been cut off, and has come back.
func testClient(t *testing.T, s *site, p page, afterCuts func(*testing.T, page)) {
	p.run(chromedp.Evaluate[chromedp.Void](`let drawn = 0; Math.random = () => drawn += 1e-9; undefined`)) // comes back at once
	n := &numbers{s: s, next: map[string]int{}}
	n.publish(t, 3, "room:1", "default")
	n.want = []string{"default:0", "default:1", "default:2"}
	n.expect(p)
	p.run(chromedp.Evaluate[chromedp.Void](`hub.join("room:1").then(() => seen.joined = true); undefined`))
	p.wait("seen.joined")
	t.Run("misses nothing and repeats nothing", func(t *testing.T) {
		p := page{t, p.ctx}
		testCuts(t, s, p, n)
		afterCuts(t, p)
	})
	t.Run("what it publishes arrives once", func(t *testing.T) { testPublishes(t, s, page{t, p.ctx}) })
	t.Run("leaves a channel", func(t *testing.T) { testLeaves(t, s, page{t, p.ctx}) })
	t.Run("closes", func(t *testing.T) {
		p := page{t, p.ctx}
		p.run(chromedp.Evaluate[chromedp.Void](`hub.close(); hub.publish(1).catch(e => seen.end = e.code); undefined`))
		p.wait(`hub.state == "closed" && seen.end == "closed"`)
	})
}

// testCuts cuts it off again and again, also after it was refused a channel.
func testCuts(t *testing.T, s *site, p page, n *numbers) {
	for range 3 {
		n.publish(t, 3, "room:1", "default")
		s.cut()
		n.publish(t, 3, "room:1", "default")
		n.expect(p)
	}
	p.run(chromedp.Evaluate[chromedp.Void](`hub.join("secret").catch(e => seen.refused = e.code); undefined`))
	p.wait(`seen.refused == "forbidden"`)
	s.cut()
	n.publish(t, 1, "room:1", "default")
	n.expect(p)
}

// testPublishes: what is published while it is cut off again and again arrives once, and in order where there is one
// line.
func testPublishes(t *testing.T, s *site, p page) {
	out := s.subscribe(t)
	p.run(chromedp.Evaluate[chromedp.Void](`
		seen.ids = []
		let n = 0
		const timer = setInterval(() => {
			hub.publish({ n: n++ }, { event: "price" }).then(id => seen.ids.push(id), e => seen.errors.push(e.code))
			if (n == 100) clearInterval(timer)
		}, 5)
		undefined`))
	for i := range 8 {
		p.wait(fmt.Sprintf("seen.ids.length >= %d", 10*(i+1)))
		s.cut()
	}
	p.wait("seen.ids.length == 100 && seen.events.length >= 100")
	var got, want []string
	for i := range 100 {
		want = append(want, fmt.Sprintf(`{"n":%d}`, i))
		_, data, err := out.Read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, string(data))
	}
	if !slices.Equal(got, want) {
		t.Errorf("another client got %q", got)
	}
	if got := evaluate[int](p, "seen.events.length"); got != 100 {
		t.Errorf("the page got %d of its 100 messages", got)
	}
}

// testLeaves: it gets nothing more of a channel that it leaves. Nor did anything go wrong before.
func testLeaves(t *testing.T, s *site, p page) {
	p.run(chromedp.Evaluate[chromedp.Void](`seen.got.length = 0; hub.leave("room:1").then(() => seen.left = true); undefined`))
	p.wait("seen.left")
	s.publishOn(t, "room:1", "not for me")
	s.publish(t, "for me")
	p.wait(`seen.got.includes("default:for me")`)
	if evaluate[bool](p, `seen.got.length > 1 || seen.gaps.length > 0 || seen.errors.some(e => e.code != "forbidden")`) {
		t.Errorf("seen: %s", evaluate[string](p, "JSON.stringify(seen)"))
	}
}

// subscribe connects a client that is no browser, past the line.
func (s *site) subscribe(t *testing.T) *websocket.Conn {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DialContext: unixDialer(s.upstream)}}
	c, _, err := websocket.Dial(t.Context(), "ws://localhost/ws", &websocket.DialOptions{HTTPClient: client})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.CloseNow() })
	return c
}

// TestClientDeliverEvery: nor does it miss or repeat anything when it is cut off while messages wait for their delivery, though it
// has had the answers to what it has published, whose positions are beyond them.
func TestClientDeliverEvery(t *testing.T) {
	s, p := openClient(t, "broadcast /ws {\ndeliver_every 300ms\n}")
	n := numbers{s: s, next: make(map[string]int)}
	for i := range 3 {
		n.publish(t, 3, "default")
		p.run(chromedp.Evaluate[chromedp.Void](fmt.Sprintf(`hub.publish("mine").then(() => seen.acks = %d); undefined`, i+1)))
		n.want = append(n.want, "default:mine")
		p.wait(fmt.Sprintf("seen.acks == %d", i+1))
		s.cut()
		n.publish(t, 3, "default")
		n.expect(p)
	}
	if evaluate[bool](p, `seen.gaps.length > 0 || seen.errors.length > 0`) {
		t.Errorf("seen: %s", evaluate[string](p, "JSON.stringify(seen)"))
	}
}

// TestClientByEventStream: the same holds where something on the way lets no WebSocket through.
func TestClientByEventStream(t *testing.T) {
	s, p := openClient(t, `@upgrade header Connection *Upgrade*
	handle @upgrade {
		@browser header Sec-WebSocket-Protocol broadcast.v1
		error @browser 403
		broadcast /ws
	}
	handle {
		broadcast /ws {
			join room:*
		}
	}`)
	testClient(t, s, p, func(*testing.T, page) {})
}

// TestClientByEventStreamClosed: what was on its way when the client was closed does not open it again.
func TestClientByEventStreamClosed(t *testing.T) {
	_, p := openClient(t, `@upgrade header Connection *Upgrade*
	error @upgrade 403
	broadcast /ws`)
	p.run(chromedp.Evaluate[chromedp.Void](`
		globalThis.fetch = () => new Promise((_, fail) => seen.fail = fail)
		hub.publish(1).catch(e => seen.end = e.code)
		undefined`))
	p.wait("seen.fail")
	p.run(chromedp.Evaluate[chromedp.Void](`
		hub.close()
		seen.fail(Error("the network is gone"))
		setTimeout(() => seen.after = hub.state)
		undefined`))
	p.wait(`seen.after == "closed" && seen.end == "closed" && seen.states.at(-1) == "closed"`)
}

// TestClientByEventStreamJoins: two joins that are made while an event stream connects need another stream, and both are
// answered by that one.
func TestClientByEventStreamJoins(t *testing.T) {
	_, p := openClient(t, `@upgrade header Connection *Upgrade*
	error @upgrade 403
	broadcast /ws {
		join room:*
	}`)
	p.run(chromedp.Evaluate[chromedp.Void](`
		let streams = 0
		globalThis.EventSource = class extends EventSource {
			constructor(url, options) {
				super(url, options)
				streams++
			}
		}
		import("/ws?client").then(({ connect }) => {
			const other = connect("/ws")
			other.onstate = state => {
				if (state != "connecting" || streams != 1 || seen.asked) return
				seen.asked = true
				Promise.all([other.join("room:1"), other.join("room:2")]).then(() => seen.joined = "both", e => seen.joined = e.code)
			}
		})
		undefined`))
	p.wait("seen.joined")
	if got := evaluate[string](p, "seen.joined"); got != "both" {
		t.Errorf("joined %s", got)
	}
}

// TestClientByEventStreamJoinsNothing: a join without a channel, such as that of a field left empty, is refused. It does not
// have the client open one stream after the other.
func TestClientByEventStreamJoinsNothing(t *testing.T) {
	_, p := openClient(t, `@upgrade header Connection *Upgrade*
	error @upgrade 403
	broadcast /ws {
		join room:*
	}`)
	p.run(chromedp.Evaluate[chromedp.Void](`hub.join("").catch(e => seen.empty = e.code); undefined`))
	p.wait(`seen.empty && hub.state == "open"`)
	if got := evaluate[string](p, "seen.empty"); got != "forbidden" {
		t.Errorf("rejected with %s", got)
	}
}

// TestClientTimeout: a request ends though there is no server to answer it.
func TestClientTimeout(t *testing.T) {
	s, p := openClient(t, "broadcast /ws")
	p.run(chromedp.Evaluate[chromedp.Void](`
		let late = 0
		const now = Date.now
		Date.now = () => now() + late
		import("/ws?client").then(({ connect }) => {
			seen.late = ms => late = ms
			seen.other = connect("/ws")
		})
		undefined`))
	p.wait(`seen.other?.state == "open"`)
	s.shut()
	p.wait(`seen.other.state == "waiting"`)
	p.run(chromedp.Evaluate[chromedp.Void](`
		seen.other.publish(1).catch(e => seen.end = e.code)
		seen.late(90_000)
		undefined`))
	p.run(chromedp.Evaluate[chromedp.Void](`seen.tries = 0; seen.other.onstate = () => seen.tries++; dispatchEvent(new Event("online")); undefined`))
	p.wait(`seen.tries > 2`)
	if evaluate[bool](p, `seen.end != null`) {
		t.Error("the request ends before its time is over")
	}
	p.run(chromedp.Evaluate[chromedp.Void](`seen.late(101_000); dispatchEvent(new Event("online")); undefined`))
	p.wait(`seen.end == "timeout"`)
}

// TestClientAndServerRestart: a page that comes back to a server that has forgotten everything is told of the gap, and
// goes on.
func TestClientAndServerRestart(t *testing.T) {
	s, p := openClient(t, "broadcast /ws")
	s.config = strings.Replace(s.config, "history 1000", "history_file off", 1)
	s.start()
	p.wait(`hub.state == "open"`)
	s.publish(t, "before")
	p.wait("seen.got.length == 1")
	for range 2 {
		if err := caddy.Stop(); err != nil {
			t.Fatal(err)
		}
		p.wait(`seen.states.at(-1) != "open"`)
		s.start()
		p.wait(`hub.state == "open"`)
	}
	s.publish(t, "after")
	p.wait(`seen.got.at(-1) == "default:after"`)
	if got := evaluate[string](p, "JSON.stringify(seen.gaps.map(g => g.channels))"); got != `[["default"],["default"]]` {
		t.Errorf("the gaps are %s", got)
	}
}

// TestClientOffline: a page that cannot connect for long comes back as soon as the browser says that it is online, or
// the page is looked at.
func TestClientOffline(t *testing.T) {
	s, p := openClient(t, "broadcast /ws")
	n := &numbers{s: s, next: map[string]int{}}
	p.run(chromedp.Evaluate[chromedp.Void](`Math.random = () => .999; undefined`))
	for _, event := range []string{"online", "visibilitychange"} {
		s.shut()
		p.wait(`hub.state == "waiting" && (globalThis.waited ||= seen.states.filter(s => s == "waiting").length == 5)`) // for 8 s by now
		n.publish(t, 5, "default")
		s.open()
		p.run(chromedp.Evaluate[chromedp.Void](`seen.states.length = 0; dispatchEvent(new Event("` + event + `")); undefined`))
		n.expect(p)
	}
}

// TestClientAfterSleep: a connection that is dead without a word, as after a sleep, is given up when its heartbeat stays
// out.
func TestClientAfterSleep(t *testing.T) {
	s, p := openClient(t, "broadcast /ws {\n ping_interval 1s\n }")
	n := &numbers{s: s, next: map[string]int{}}
	n.publish(t, 5, "default")
	n.expect(p)
	s.hold(true)
	n.publish(t, 5, "default")
	p.wait(`hub.state != "open"`)
	s.cut()
	s.hold(false)
	n.expect(p)
}

// TestClientFrames: what came since the last frame comes at once, in order, with the latest of each key if wanted; and
// as long as there are no frames, so much of it as was allowed, and how much more there was.
func TestClientFrames(t *testing.T) {
	s, p := openClient(t, "broadcast /ws")
	const frames = `
		const frames = []
		globalThis.requestAnimationFrame = fn => frames.push(fn)
		const { connect } = await import("/ws?client")
		globalThis.hub = connect("/ws")
		globalThis.seen = { all: [], some: [], latest: [], other: [] }
		hub.frame((ms, dropped) => seen.all.push([ms.map(m => m.data).join(), dropped]))
		hub.frame((ms, dropped) => seen.some.push([ms.map(m => m.data).join(), dropped]), { limit: 3 })
		hub.frame((ms, dropped) => seen.latest.push([ms.map(m => m.data).join(), dropped]), { key: m => m.data % 3 })
		const off = hub.frame(ms => seen.other.push(ms.length), { event: "message" })
		let count = 0
		hub.on("*", () => ++count == 5 && off())
		globalThis.run = n => count == n && frames.length >= 3 && (frames.splice(0).forEach(fn => fn()), true)
		undefined`
	p.run(chromedp.Evaluate[chromedp.Void]("(async () => {" + frames + "})()"))
	p.wait(`globalThis.hub?.state == "open" && globalThis.run`)
	for i := range 10 {
		s.publish(t, fmt.Sprint(i))
	}
	p.wait("run(10)")
	s.publish(t, "10")
	p.wait("run(11)")
	want := `{"all":[["0,1,2,3,4,5,6,7,8,9",0],["10",0]],"some":[["7,8,9",7],["10",0]],"latest":[["7,8,9",0],["10",0]],"other":[]}`
	if got := evaluate[string](p, "JSON.stringify(seen)"); got != want {
		t.Errorf("got %s, not %s", got, want)
	}

	// A listener that throws keeps nothing from the others, nor from itself.
	p.run(chromedp.Evaluate[chromedp.Void](`
		seen.errors = []
		addEventListener("unhandledrejection", e => { seen.errors.push(e.reason.message); e.preventDefault() })
		hub.on("message", () => { throw Error("mine") })
		hub.on("message", data => seen.last = data)
		undefined`))
	s.publish(t, "11")
	s.publish(t, "12")
	p.wait(`seen.last == "12" && seen.errors.filter(e => e == "mine").length == 2`)
}

// TestClientHidden: a page in a window that is minimized gets its messages when it is seen again, all at once, as many as
// it lets wait, and is told how many there were before.
func TestClientHidden(t *testing.T) {
	s, p := openClient(t, "broadcast /ws")
	w, err := chromedp.Call(p.ctx, browser.GetWindowForTarget, browser.GetWindowForTargetParams{})
	if err != nil {
		t.Fatal(err)
	}
	turn := func(state browser.WindowState) {
		t.Helper()
		if _, err := chromedp.Call(p.ctx, browser.SetWindowBounds, browser.SetWindowBoundsParams{
			WindowID: w.WindowID, Bounds: &browser.Bounds{WindowState: state},
		}); err != nil {
			t.Fatal(err)
		}
	}
	turn(browser.WindowStateMinimized)
	p.wait("document.hidden")
	p.run(chromedp.Evaluate[chromedp.Void](`
		seen.all = []
		seen.some = []
		hub.frame((ms, dropped) => seen.all.push([ms.map(m => m.data).join(), dropped]))
		hub.frame((ms, dropped) => seen.some.push([ms.map(m => m.data).join(), dropped]), { limit: 10 })
		undefined`))
	n := &numbers{s: s, next: map[string]int{}}
	n.publish(t, 100, "default")
	n.expect(p)
	if got := evaluate[int](p, "seen.all.length + seen.some.length"); got != 0 {
		t.Errorf("while it is hidden it is updated %d times", got)
	}
	turn(browser.WindowStateNormal)
	p.wait("seen.all.length && seen.some.length")
	var want []string
	for i := range 100 {
		want = append(want, fmt.Sprint(i))
	}
	if got := evaluate[string](p, "JSON.stringify([seen.all, seen.some])"); got !=
		fmt.Sprintf(`[[["%s",0]],[["%s",90]]]`, strings.Join(want, ","), strings.Join(want[90:], ",")) {
		t.Errorf("seen: %s", got)
	}
}

// TestHundredPages: a hundred pages in one browser get all of what is published, once, in order.
func TestHundredPages(t *testing.T) {
	p := page{t, chromium.Open(t)}
	s := serve(t, clientPage, "broadcast /ws")
	s.write("app.js", clientScript)
	var frames strings.Builder
	for range 100 {
		frames.WriteString("<iframe src=/></iframe>")
	}
	s.write("all.html", "<!doctype html><title>all</title>"+frames.String())
	p.run(chromedp.Navigate("http://" + s.addr + "/all.html"))
	p.wait(`frames.length == 100 && Array.from(frames).every(f => f.hub?.state == "open")`)
	n := &numbers{s: s, next: map[string]int{}}
	n.publish(t, 50, "default")
	p.wait(`Array.from(frames).every(f => f.seen.got.length >= 50)`)
	for i, got := range evaluate[[][]string](p, `Array.from(frames, f => f.seen.got)`) {
		if !slices.Equal(got, n.want) {
			t.Fatalf("page %d got %q", i, got)
		}
	}
}
