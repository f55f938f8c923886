package browser

import (
	"fmt"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
)

// TestClientReload: what a page publishes during reloads is published once and in order, by WebSocket and by POST.
func TestClientReload(t *testing.T) {
	for name, directives := range map[string]string{
		"websocket": "broadcast /ws",
		"sse":       "@upgrade header Connection *Upgrade*\nerror @upgrade 403\nbroadcast /ws",
	} {
		t.Run(name, func(t *testing.T) {
			s, p := openClient(t, directives)
			config := s.config
			p.run(chromedp.Evaluate[chromedp.Void](`
				seen.ids = []
				let n = 0
				const timer = setInterval(() => {
					hub.publish(n++).then(id => seen.ids.push(id), e => seen.errors.push(e.message))
					if (n == 60) clearInterval(timer)
				}, 5)
				undefined`))
			for i := range 5 {
				p.wait(fmt.Sprintf("seen.ids.length >= %d", 10*i))
				s.config = strings.Replace(config, "file_server", fmt.Sprintf("respond /n %d\nfile_server", i), 1)
				s.start()
			}
			p.wait("seen.ids.length == 60 && seen.got.length >= 60")
			var want []string
			for i := range 60 {
				want = append(want, fmt.Sprint("default:", i))
			}
			if got := evaluate[[]string](p, "seen.got.concat(seen.errors)"); strings.Join(got, " ") != strings.Join(want, " ") {
				t.Errorf("got %q", got)
			}
		})
	}
}
