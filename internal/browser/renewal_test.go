package browser

import (
	"net/http"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

// pend has the page be asked for new access, and answer when seen.renew is called.
func pend(p page, renewed string) {
	p.t.Helper()
	listen(p, renewed)
	p.run(chromedp.Evaluate[chromedp.Void](`
		hub.onexpire = () => {
			seen.expired++
			return new Promise(done => { seen.renew = () => done("` + renewed + `") })
		}
		undefined`))
}

// TestClientRenewalPending: while the page gets new access, an event of the browser is no reason to try the old one, for which the client
// would be refused, and its requests with it.
func TestClientRenewalPending(t *testing.T) {
	_, p := openExpiring(t)
	connectUntil(p, 2*time.Second)
	pend(p, until(time.Hour))
	p.wait(`seen.expired == 1`)
	p.run(chromedp.Evaluate[chromedp.Void](`
		other.states.length = 0
		dispatchEvent(new Event("online"))
		seen.states = other.states.join()
		hub.publish("waits").then(() => (seen.sent = true), error => (seen.sent = error.code))
		seen.renew()
		undefined`))
	p.wait(`seen.sent`)
	if got := evaluate[string](p, "JSON.stringify([seen.states, seen.sent, other.states, other.errors])"); got != `["",true,["connecting","open"],[]]` {
		t.Error(got)
	}
}

// TestClientKickedMeanwhile: one that is kicked while the page gets new access stays away.
func TestClientKickedMeanwhile(t *testing.T) {
	s, p := openExpiring(t)
	connectUntil(p, 40*time.Second)
	pend(p, until(time.Hour))
	p.run(chromedp.Evaluate[chromedp.Void](`
		const now = Date.now
		Date.now = () => now() + 30_000
		dispatchEvent(new Event("online"))
		undefined`))
	p.wait(`seen.expired == 1`)
	s.change(t, http.MethodDelete, "connections?user=ann&code=4403", "")
	p.wait(`hub.state == "refused"`)
	p.run(chromedp.Evaluate[chromedp.Void](`
		seen.renew()
		setTimeout(() => (seen.settled = true))
		undefined`))
	p.wait(`seen.settled`)
	if got := evaluate[string](p, "JSON.stringify([hub.state, other.states.at(-1)])"); got != `["refused","refused"]` {
		t.Error(got)
	}
}
