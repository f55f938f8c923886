package browser

import (
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/caddy-broadcast/caddy-broadcast/internal/chromium"
)

// presenceScript has two clients in a page. The first one keeps what it was told.
const presenceScript = `
import { connect } from "/ws?client=presence"
globalThis.seen = []
globalThis.ann = connect("/ws?me=ann")
globalThis.brief = (members, change) => [members?.map(m => m.user + (m.data?.name ?? "")).sort().join(), change.count, change.left?.length].join()
ann.presence("room", (...args) => seen.push(brief(...args)))
globalThis.arrive = () => globalThis.bob = connect("/ws?me=bob")
`

// TestPresence: a page knows who is on a channel, also after a reconnect, and on one that it joins, until it leaves that.
func TestPresence(t *testing.T) {
	p := page{t, chromium.Open(t)}
	s := serve(t, clientPage, policy+`broadcast /ws room {
		user {query.me}
		join side
		presence 0
		member `+"`"+`{"name": "={query.me}"}`+"`"+`
	}`)
	s.write("app.js", presenceScript)
	p.run(chromedp.Navigate("http://" + s.addr))
	p.wait(`seen.at(-1) == "ann=ann,1,"`)
	p.wait(`arrive() || true`)
	p.wait(`seen.at(-1) == "ann=ann,bob=bob,2,0"`)
	p.wait(`ann.presence("room", (...args) => globalThis.late = brief(...args)) && true`)
	p.wait(`late == "ann=ann,bob=bob,2,"`)
	p.wait(`bob.close() || true`)
	p.wait(`seen.at(-1) == "ann=ann,1,1" && late == seen.at(-1)`)
	p.wait(`ann.reconnect() || true`)
	p.wait(`seen.at(-1) == "ann=ann,1,"`)
	p.wait(`(globalThis.side = [], ann.presence("side", (...args) => side.push(brief(...args))), ann.join("side"), true)`)
	p.wait(`side.join(" ") == "ann=ann,1,"`)
	p.wait(`(ann.leave("side").then(() => {
		ann.presence("side", () => side.push("who left was told of it"))
		setTimeout(() => globalThis.after = true)
	}), true)`)
	p.wait(`globalThis.after`)
	if got := evaluate[string](p, `side.join(" ")`); got != "ann=ann,1," {
		t.Error(got)
	}
}

// scriptedSocket is a server in the page: each socket is the last one, and gets the frames that a test passes to feed.
const scriptedSocket = `
import { connect } from "/ws?client=presence"
globalThis.WebSocket = class {
	constructor() { globalThis.socket = this }
	send() {}
	close() {}
}
globalThis.hub = connect("/ws")
globalThis.feed = (...entries) => socket.onmessage({ data: JSON.stringify(entries) })
globalThis.hello = { hello: { id: "e-0", channels: ["a"], heartbeat: 30 } }
globalThis.seen = []
globalThis.watch = (channel, name) => hub.presence(channel, (members, change) =>
	seen.push([name, members?.map(m => m.user).join("+") ?? "counted", change.count, change.members ? "all" : "change"].join()))
globalThis.user = name => ({ user: name })
`

// TestPresenceEntries: what the client makes of each entry that it may get, and of those that it does not know.
func TestPresenceEntries(t *testing.T) {
	p := page{t, chromium.Open(t)}
	s := serve(t, clientPage, policy+"broadcast /ws")
	s.write("app.js", scriptedSocket)
	p.run(chromedp.Navigate("http://" + s.addr))
	p.wait("globalThis.feed && true")
	const list = `{ presence: { channel: "a", count: 2, members: [user("ann"), user("bob")] } }`
	for _, step := range []struct{ name, script, want string }{
		{"a watcher before the list", `feed(hello); watch("a", 1)`, ""},
		{"the list", `feed(` + list + `)`, "1,ann+bob,2,all"},
		{"one after it", `watch("a", 2)`, "2,ann+bob,2,all"},
		{"one that is removed at once, and one elsewhere", `watch("a", 3)(); watch("b", 4)`, ""},
		{"a change", `feed({ presence: { channel: "a", count: 2, joined: [user("cy")], left: [user("ann")] } })`, "1,bob+cy,2,change 2,bob+cy,2,change"},
		{"too many", `feed({ presence: { channel: "a", count: 5000 } })`, "1,counted,5000,change 2,counted,5000,change"},
		{"a watcher of too many", `queueMicrotask(watch("a", 5))`, "5,counted,5000,change"},
		{"the list again", `feed(` + list + `)`, "1,ann+bob,2,all 2,ann+bob,2,all"},
		{"unsubscribed, and a change that was on its way", `feed({ unsubscribed: { channel: "a" } }, { presence: { channel: "a", count: 1, joined: [], left: [user("ann")] } }); watch("a", 7)()`, ""},
		{"a reconnect", `feed(` + list + `); seen.length = 0; feed(hello); watch("a", 8)()`, ""},
		{"unknown entries, and a message behind them", `hub.on("*", data => seen.push(data)); feed({ later: { channel: "a" } }, {}, { ack: {} }, { id: "e-1", channel: "a", data: "a message" })`, "a message"},
	} {
		p := page{t, p.ctx}
		p.wait(`((seen.length = 0), ` + "(() => {" + step.script + "})(), true)")
		if got := evaluate[string](p, `seen.join(" ")`); got != step.want {
			t.Errorf("%s: %q, not %q", step.name, got, step.want)
		}
	}
	if state := evaluate[string](p, "hub.state"); state != "open" {
		t.Error(state)
	}
}
