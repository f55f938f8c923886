package browser

import (
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/caddy-broadcast/caddy-broadcast/internal/chromium"
)

// presenceScript has two clients in a page. The first one keeps what it was told.
const presenceScript = `
import { connect } from "/ws?client"
globalThis.seen = []
globalThis.ann = connect("/ws?me=ann")
ann.presence("room", (members, change) => seen.push([members?.map(m => m.user + (m.data?.name ?? "")).sort().join(), change.count, change.left?.length]))
globalThis.arrive = () => globalThis.bob = connect("/ws?me=bob")
`

// TestPresence: a page knows who is on a channel, also after a reconnect.
func TestPresence(t *testing.T) {
	p := page{t, chromium.Open(t)}
	s := serve(t, clientPage, policy+`broadcast /ws room {
		user {query.me}
		presence 0
		member `+"`"+`{"name": "={query.me}"}`+"`"+`
	}`)
	s.write("app.js", presenceScript)
	p.run(chromedp.Navigate("http://" + s.addr))
	p.wait(`seen.at(-1)?.join() == "ann=ann,1,"`)
	p.wait(`arrive() || true`)
	p.wait(`seen.at(-1)?.join() == "ann=ann,bob=bob,2,0"`)
	p.wait(`bob.close() || true`)
	p.wait(`seen.at(-1)?.join() == "ann=ann,1,1"`)
	p.wait(`ann.reconnect() || true`)
	p.wait(`seen.at(-1)?.join() == "ann=ann,1,"`)
}
