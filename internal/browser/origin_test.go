package browser

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/caddy-broadcast/caddy-broadcast/internal/chromium"
)

// TestNoCORS: a page of another site gets no stream with a visitor's cookies, also where a browser sends no Origin.
func TestNoCORS(t *testing.T) {
	p := page{t, chromium.Open(t)}
	s := serve(t, "<!doctype html><title>x</title>", "broadcast /ws")
	p.run(chromedp.Navigate("http://" + s.addr))
	_, port, _ := net.SplitHostPort(s.addr)
	evaluate[int](p, fmt.Sprintf(`globalThis.answers = []; for (let i = 0; i < 3; i++)
		fetch("http://localhost:%s/ws", {mode: "no-cors", credentials: "include", headers: {Accept: "text/event-stream"}})
			.then(r => r.text()).then(() => answers.push("ended"), e => answers.push(String(e))); 1`, port))
	p.wait("answers.length == 3")

	client := &http.Client{Transport: &http.Transport{DialContext: unixDialer(s.admin)}}
	resp, err := client.Get("http://localhost/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	metrics, _ := io.ReadAll(resp.Body)
	for _, want := range []string{`caddy_broadcast_refused_total{limit="origin"} 3`, `caddy_broadcast_closed_total{reason="client"} 0`} {
		if !strings.Contains(string(metrics), want) {
			t.Errorf("no %s", want)
		}
	}
	// Its own page's streams have no Origin either.
	evaluate[int](p, `globalThis.own = new EventSource("/ws"); 1`)
	p.wait("own.readyState == EventSource.OPEN")
}
