package browser

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

// TestClientInWorker: the client needs no page.
func TestClientInWorker(t *testing.T) {
	s, p := openClient(t, "broadcast /ws")
	s.write("worker.js", `import { connect } from "/ws?client"
		const hub = connect("/ws")
		hub.onstate = s => postMessage(s)
		hub.frame(ms => ms.forEach(m => postMessage(m.data)))`)
	p.run(chromedp.Evaluate[chromedp.Void](`
		globalThis.told = []
		new Worker("/worker.js", { type: "module" }).onmessage = e => told.push(e.data)
		undefined`))
	p.wait(`told.includes("open")`)
	s.publish(t, "hello")
	p.wait(`told.includes("hello")`)
}

// TestClientInNode: nor a browser. Node has WebSockets since version 22, and before with an option.
func TestClientInNode(t *testing.T) {
	s := serve(t, "", "broadcast /ws")
	script := filepath.Join(s.dir, "node.mjs")
	module, err := filepath.Abs("../../client/broadcast.js")
	if err != nil {
		t.Fatal(err)
	}
	s.write("node.mjs", `import { connect } from "`+module+`"
		const hub = connect("http://`+s.addr+`/ws")
		hub.on("message", data => console.log(data))
		console.log(typeof await hub.publish("hello"))
		hub.close()`)
	node, err := exec.LookPath("node")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip("no Node is installed: apt-get install nodejs")
	}
	args := []string{script}
	if exec.Command(node, "-e", "WebSocket").Run() != nil {
		if args = []string{"--experimental-websocket", script}; exec.Command(node, args[0], "-e", "WebSocket").Run() != nil {
			t.Skip("this Node has no WebSocket")
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, node, args...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if got := strings.Fields(string(out)); err != nil || len(got) != 2 || !slices.Contains(got, "hello") || !slices.Contains(got, "string") {
		t.Errorf("%v: %s", err, out)
	}
}
