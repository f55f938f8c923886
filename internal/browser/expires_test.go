package browser

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/caddy-broadcast/caddy-broadcast/internal/authtest"
	"github.com/caddy-broadcast/caddy-broadcast/internal/chromium"
)

// until returns the address of a route whose access ends after a time.
func until(d time.Duration) string {
	return fmt.Sprintf("/expiring?until=%.3f", float64(time.Now().Add(d).UnixMilli())/1000)
}

const expiring = "broadcast /ws\nbroadcast /expiring {\n expires {query.until}\n user ann\n join room:*\n }\n"

// openExpiring is openClient, without the connection that the page has then.
func openExpiring(t *testing.T) (*site, page) {
	t.Helper()
	s, p := openClient(t, expiring)
	p.run(chromedp.Evaluate[chromedp.Void]("hub.close(); undefined"))
	return s, p
}

// connectUntil has the page connect with access for a time.
func connectUntil(p page, d time.Duration) {
	p.t.Helper()
	connectTo(p, until(d))
	p.wait(`hub.state == "open" && other.published`)
}

// listen has the page collect what the hub gets, and answer onexpire with a new address, or an error if that is empty.
func listen(p page, renewed string) {
	p.t.Helper()
	p.run(chromedp.Evaluate[chromedp.Void](fmt.Sprintf(`
		globalThis.seen = { got: [], expired: 0 }
		hub.on("*", (data, message) => seen.got.push(message.channel + ":" + data))
		hub.onexpire = async () => {
			seen.expired++
			if (!%[1]q) throw Error("the session is over")
			return %[1]q
		}
		undefined`, renewed)))
}

// TestClientExpires: when its access has ended, the client asks the page for new access, goes on with that, and misses nothing.
func TestClientExpires(t *testing.T) {
	s, p := openExpiring(t)
	connectUntil(p, 2*time.Second)
	listen(p, until(time.Hour))
	n := &numbers{s: s, next: map[string]int{}}
	n.publish(t, 3, "default")
	p.wait("seen.expired == 1")
	n.publish(t, 3, "default")
	p.wait(`hub.state == "open"`)
	n.publish(t, 1, "default")
	n.expect(p)
	if got := evaluate[string](p, "JSON.stringify(other)"); strings.Contains(got, "4401") || strings.Contains(got, "refused") {
		t.Errorf("the page was told of it otherwise: %s", got)
	}
}

// TestClientExpiresSoon: it asks before access ends, and stays connected meanwhile.
func TestClientExpiresSoon(t *testing.T) {
	s, p := openExpiring(t)
	connectUntil(p, 40*time.Second)
	listen(p, until(time.Hour))
	// As if half a minute had passed: less than what makes a link silent.
	p.run(chromedp.Evaluate[chromedp.Void](`
		const now = Date.now
		dispatchEvent(new Event("online"))
		seen.early = seen.expired
		Date.now = () => now() + 30_000
		other.states.length = 0
		dispatchEvent(new Event("online"))
		seen.soon = seen.expired
		undefined`))
	n := &numbers{s: s, next: map[string]int{}}
	n.publish(t, 2, "default")
	p.wait(`other.states.at(-1) == "open"`)
	n.publish(t, 1, "default")
	n.expect(p)
	if got := evaluate[string](p, "JSON.stringify([seen.early, seen.soon, seen.expired, other.states, other.errors])"); got != `[0,1,1,["connecting","open"],[]]` {
		t.Error(got)
	}
}

// TestClientAccesses: however a site grants access, the client gets every message once while its access is renewed, in time and when
// it has ended already.
func TestClientAccesses(t *testing.T) {
	for _, a := range authtest.Accesses(t) {
		t.Run(a.Name, func(t *testing.T) {
			p := page{t, chromium.Open(t)}
			// With a token in the query, ?client of /ws itself is behind the authentication.
			s := serve(t, clientPage, policy+"broadcast /open\n"+a.Site)
			s.write("app.js", `import { connect } from "/open?client"; globalThis.connect = connect`)
			p.run(chromedp.Navigate("http://" + s.addr))
			p.wait("globalThis.connect && true")
			grant := func(until time.Time, more string) {
				query, header := a.Grant(until)
				p.run(chromedp.Evaluate[chromedp.Void](fmt.Sprintf("globalThis.grant = [%q, %q]; %s; undefined", header.Get("Cookie"), query.Encode(), more)))
			}
			n := &numbers{s: s, next: map[string]int{}}
			grant(time.Now().Add(50*time.Second), `
				const use = ([cookie, query]) => {
					if (!cookie) return "/ws?" + query
					document.cookie = cookie // and nothing is returned, as by a page that has renewed its session
				}
				globalThis.seen = { got: [], expired: 0, errors: [], states: [] }
				globalThis.hub = connect(use(grant) ?? "/ws")
				hub.on("*", (data, message) => seen.got.push(message.channel + ":" + data))
				hub.onerror = e => seen.errors.push(e)
				hub.onstate = s => seen.states.push(s)
				hub.onexpire = async () => {
					seen.expired++
					return use(grant)
				}`)
			p.wait(`hub.state == "open"`)
			n.publish(t, 2, "news")
			// In time: as if most of a minute had passed, less than what makes a link silent. The new access is short.
			grant(time.Now().Add(3*time.Second), `
				const now = Date.now
				Date.now = () => now() + 40_000
				dispatchEvent(new Event("online"))`)
			n.publish(t, 20, "news")
			p.wait(`seen.expired == 1 && seen.states.at(-1) == "open"`)
			n.publish(t, 2, "news")
			// Then that has ended.
			grant(time.Now().Add(time.Hour), "")
			for evaluate[int](p, "seen.expired") == 1 {
				n.publish(t, 1, "news")
			}
			p.wait(`seen.expired == 2 && hub.state == "open"`)
			n.publish(t, 2, "news")
			n.expect(p)
			if got := evaluate[string](p, "JSON.stringify([seen.states.filter(s => s == 'open').length, seen.errors])"); got != "[3,[]]" {
				t.Error(got)
			}
		})
	}
}

// TestClientExpired: a client whose page has no new access is refused, and says why.
func TestClientExpired(t *testing.T) {
	_, p := openExpiring(t)
	connectTo(p, until(1500*time.Millisecond))
	p.wait(`hub.state == "refused"`)
	if got := evaluate[string](p, "JSON.stringify(other.errors)"); got != `[{"code":"forbidden","status":4401,"message":"access has expired"}]` {
		t.Error(got)
	}
	connectTo(p, until(1500*time.Millisecond))
	p.wait(`hub.state == "open"`)
	listen(p, "")
	p.wait(`hub.state == "refused"`)
	want := `[{"code":"error","status":0,"message":"the session is over"},{"code":"forbidden","status":401,"message":"access has expired"}]`
	if got := evaluate[string](p, "JSON.stringify([other.errors[0], other.errors.at(-1)])"); got != want || evaluate[int](p, "seen.expired") != 1 {
		t.Error(got)
	}
	// It may have slept: then the next handshake gets a 401, and the page is asked too.
	connectTo(p, until(-time.Second))
	listen(p, until(time.Hour))
	p.wait(`hub.state == "open" && seen.expired == 1`)
}

// TestClientKicked: after a kick with 4403 the client stays away, whatever its transport is. 4401 has the page get new access. A
// channel that the backend has subscribed it to is among those that it asks for again, until the backend unsubscribes it.
func TestClientKicked(t *testing.T) {
	for name, block := range map[string]string{
		"WebSocket":    "",
		"event stream": `globalThis.WebSocket = class { constructor() { setTimeout(() => this.onerror({})) } close() {} }`,
	} {
		t.Run(name, func(t *testing.T) {
			s, p := openExpiring(t)
			p.run(chromedp.Evaluate[chromedp.Void](block + "\nundefined"))
			connectUntil(p, time.Hour)
			listen(p, until(time.Hour))
			n := &numbers{s: s, next: map[string]int{}}

			s.change(t, http.MethodPost, "subscriptions", `{"user":"ann","channel":"room:1"}`)
			n.publish(t, 1, "room:1", "default")
			n.expect(p)
			s.change(t, http.MethodDelete, "connections?user=ann&code=4401", "")
			n.publish(t, 2, "room:1", "default")
			n.expect(p)
			s.change(t, http.MethodDelete, "subscriptions", `{"user":"ann","channel":"room:1"}`)
			s.publishOn(t, "room:1", "without it")
			n.publish(t, 1, "default")
			n.expect(p) // so it knows by now: a client that reconnects before that would ask for the channel again
			p.run(chromedp.Evaluate[chromedp.Void](`other.states.length = 0; hub.reconnect(); undefined`))
			p.wait(`other.states.at(-1) == "open"`)
			s.publishOn(t, "room:1", "without it")
			n.publish(t, 1, "default")
			n.expect(p)

			s.change(t, http.MethodDelete, "connections?user=ann&code=4403", "")
			p.wait(`hub.state == "refused"`)
			want := `[1,{"code":"forbidden","status":4403,"message":"closed by the administrator"}]`
			if got := evaluate[string](p, "JSON.stringify([seen.expired, other.errors.at(-1)])"); got != want {
				t.Error(got)
			}
		})
	}
}

// change has the admin API change what connections there are, or what they are subscribed to.
func (s *site) change(t *testing.T, method, path, body string) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DialContext: unixDialer(s.admin), DisableKeepAlives: true}}
	r, err := http.NewRequestWithContext(t.Context(), method, "http://localhost/broadcast/"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if text, _ := io.ReadAll(resp.Body); resp.StatusCode != http.StatusOK {
		t.Fatalf("%s %s: %d %s", method, path, resp.StatusCode, text)
	}
}
