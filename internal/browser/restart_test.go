package browser

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
	"github.com/caddy-broadcast/caddy-broadcast/internal/chromium"
)

// restartPage has what a page gets by our client, by an EventSource, and by socket.io-client.
const restartPage = `<!doctype html><title>restart</title><script src="/socket.io/socket.io.js"></script><script type="module">
import { connect } from "/ws?client"
globalThis.seen = { hub: [], stream: [], socket: [] }
globalThis.gaps = []
globalThis.hub = connect("/ws")
hub.ongap = gap => gaps.push(gap)
hub.on("message", data => seen.hub.push(+data))
globalThis.stream = new EventSource("/ws")
stream.onmessage = e => seen.stream.push(+e.data)
stream.addEventListener("gap", e => gaps.push(e.data))
globalThis.socket = io({ reconnectionDelay: 10, reconnectionDelayMax: 100 })
socket.on("message", data => seen.socket.push(+data))
</script>`

// TestRestart: a page goes on across a deploy, by each kind of connection, while messages are published all the time. It gets
// each of them once, in order, and no gap.
func TestRestart(t *testing.T) {
	p := page{t, chromium.Open(t)}
	d := newDeployed(t)
	end := d.start()
	p.run(chromedp.Navigate("http://" + d.addr))
	p.wait(`globalThis.hub?.state == "open" && stream.readyState == 1 && socket.connected`)
	stop, last := make(chan struct{}), make(chan int)
	go func() {
		n := 0
		for tick := time.Tick(10 * time.Millisecond); ; <-tick {
			select {
			case <-stop:
				last <- n
				return
			default:
				n++
				d.publish(n)
			}
		}
	}()
	for range 2 {
		got := evaluate[int](p, "seen.hub.length")
		p.wait(fmt.Sprintf("Object.values(seen).every(got => got.length > %d)", got))
		end()
		end = d.start()
	}
	close(stop)
	want := make([]int, <-last)
	for i := range want {
		want[i] = i + 1
	}
	p.wait(fmt.Sprintf("Object.values(seen).every(got => got.at(-1) == %d)", len(want)))
	for _, by := range []string{"hub", "stream", "socket"} {
		if got := evaluate[[]int](p, "seen."+by); !slices.Equal(got, want) {
			t.Errorf("by the %s the page got %v", by, got)
		}
	}
	if n := evaluate[int](p, "gaps.length"); n > 0 || !evaluate[bool](p, "socket.recovered") {
		t.Errorf("the page was told of %d gaps, or its socket has begun anew", n)
	}
}

// deployed is a site whose process is replaced by another one.
type deployed struct {
	t                       *testing.T
	addr, admin, file, name string
}

func newDeployed(t *testing.T) *deployed {
	dir := t.TempDir()
	d := &deployed{t, caddytest.FreeAddr(t), caddytest.FreeAddr(t), filepath.Join(dir, "Caddyfile"), filepath.Join(dir, "caddy")}
	for name, text := range map[string]string{"index.html": restartPage, "Caddyfile": fmt.Sprintf(`{
		admin %s
		persist_config off
		storage file_system %s
		broadcast {
			history 10000
		}
	}
	http://%s {
		root %s
		broadcast /ws
		broadcast /socket.io/* {
			socketio
		}
		file_server
	}`, d.admin, filepath.Join(dir, "data"), d.addr, dir)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return d
}

// start starts a process from a binary that is new on the disk, and returns what ends it cleanly.
func (d *deployed) start() (end func()) {
	os.Remove(d.name)
	binary, err := os.ReadFile(os.Args[0])
	if err == nil {
		err = os.WriteFile(d.name, binary, 0o700)
	}
	if err != nil {
		d.t.Fatal(err)
	}
	var cmd *exec.Cmd
	cmd, ended := caddytest.StartProcess(d.t, d.name, d.file, d.addr, d.admin)
	return func() {
		d.t.Helper()
		cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(20 * time.Second):
			d.t.Fatal("it does not end")
		}
	}
}

// publish publishes a number, and again until it is certain that it is published, as the documentation says it.
func (d *deployed) publish(n int) {
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		r, err := http.NewRequest("POST", "http://"+d.admin+"/broadcast/publish", strings.NewReader(fmt.Sprint(n)))
		if err != nil {
			d.t.Error(err)
			return
		}
		r.Header.Set("Idempotency-Key", fmt.Sprint("number ", n))
		if resp, err := http.DefaultClient.Do(r); err == nil {
			resp.Body.Close()
			if resp.StatusCode == 200 {
				return
			}
		}
	}
	d.t.Errorf("%d is not published", n)
}
