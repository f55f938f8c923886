package examples_test

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/coder/websocket"

	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
	"github.com/caddy-broadcast/caddy-broadcast/internal/chromium"
	"github.com/caddy-broadcast/caddy-broadcast/internal/natstest"
)

// cluster is the example, started by its one command.
type cluster struct {
	t     *testing.T
	site  string            // host:port of the load balancer
	nodes map[string]string // host:port of each node
	stdin io.Writer

	nats     string // host:port of nats-server
	launcher *os.Process
	killed   bool // on purpose
}

func startCluster(t *testing.T) *cluster {
	t.Helper()
	natstest.Binary(t)
	binary := filepath.Join(t.TempDir(), "cluster")
	if out, err := exec.Command("go", "build", "-o", binary, "./cluster").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var ports []string
	for range 8 {
		ports = append(ports, caddytest.FreePort(t))
	}
	c := &cluster{t: t, site: "localhost:" + ports[0], nodes: map[string]string{}, nats: "localhost:" + ports[7]}
	for i, name := range []string{"a", "b", "c"} {
		c.nodes[name] = "localhost:" + ports[i+1]
	}
	cmd := exec.Command(binary, "-ports", strings.Join(ports, " "), "-restart", "2s")
	cmd.Dir = ".." // as in a checkout
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	stdin, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	c.stdin, c.launcher = stdin, cmd.Process
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM) // it ends its processes
		if err := cmd.Wait(); err != nil && !c.killed {
			t.Error(err)
		}
	})
	for _, node := range c.nodes {
		c.waitHealthy(node)
	}
	return c
}

// waitHealthy waits until a node receives from the broker. There is no event to wait for in another process.
func (c *cluster) waitHealthy(node string) {
	c.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		resp, err := http.Get("http://" + node + "/health")
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return
			}
		}
		if time.Now().After(deadline) {
			c.t.Fatal(node, resp, err)
		}
	}
}

// kill ends a process at once.
func (c *cluster) kill(name string) {
	c.t.Helper()
	if _, err := fmt.Fprintln(c.stdin, name); err != nil {
		c.t.Fatal(err)
	}
}

// nodeOf returns the node that the load balancer chooses for a tab.
func (c *cluster) nodeOf(tab string) string {
	c.t.Helper()
	resp, err := http.Get("http://" + c.site + "/node?tab=" + tab)
	if err != nil {
		c.t.Fatal(err)
	}
	defer resp.Body.Close()
	name, err := io.ReadAll(resp.Body)
	if err != nil || c.nodes[string(name)] == "" {
		c.t.Fatal(string(name), err)
	}
	return string(name)
}

// follower reads the numbers of the example, which must come one after another, on whichever node it is.
type follower struct {
	*cluster
	conn   *websocket.Conn
	lastID string
	last   int
}

// connect resumes on a node.
func (f *follower) connect(node string) {
	f.t.Helper()
	address := "ws://" + f.nodes[node] + "/live?last_id=" + url.QueryEscape(f.lastID)
	conn, _, err := websocket.Dial(f.t.Context(), address, &websocket.DialOptions{Subprotocols: []string{"broadcast.v1"}})
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { conn.CloseNow() })
	f.conn = conn
}

// read reads at least n more numbers, or, if n is negative, until the connection breaks.
func (f *follower) read(n int) {
	f.t.Helper()
	for end := f.last + n; n < 0 || f.last < end; {
		_, frame, err := f.conn.Read(f.t.Context())
		if err != nil {
			if n < 0 && f.t.Context().Err() == nil {
				return
			}
			f.t.Fatal(err)
		}
		var entries []struct {
			ID, Event  string
			Data       int
			Hello, Gap *struct{ ID string }
		}
		if err := json.Unmarshal(frame, &entries); err != nil {
			f.t.Fatalf("%s: %v", frame, err)
		}
		for _, e := range entries {
			switch {
			case e.Gap != nil:
				f.t.Fatalf("a gap: %s", frame)
			case e.Hello != nil:
				f.lastID = e.Hello.ID
			case e.Event == "number":
				if f.last > 0 && e.Data != f.last+1 {
					f.t.Fatalf("%d comes after %d", e.Data, f.last)
				}
				f.last, f.lastID = e.Data, e.ID
			}
		}
	}
}

// TestClusterKilled: no process stays when the one that started them is killed.
func TestClusterKilled(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux kills a process with its parent")
	}
	c := startCluster(t)
	c.killed = true
	if err := c.launcher.Kill(); err != nil {
		t.Fatal(err)
	}
	addrs := append(slices.Collect(maps.Values(c.nodes)), c.nats)
	for deadline := time.Now().Add(20 * time.Second); len(addrs) > 0; {
		conn, err := net.Dial("tcp", addrs[0])
		if err != nil {
			addrs = addrs[1:]
			continue
		}
		conn.Close()
		if time.Now().After(deadline) {
			t.Fatalf("still there: %v", addrs)
		}
		time.Sleep(time.Millisecond) // another process has no event
	}
}

// TestClusterResume: a client whose node is killed resumes on another one, and so does one that just moves. Nothing is
// missing, and nothing comes twice. The same is true of a client that stays while the broker is killed.
func TestClusterResume(t *testing.T) {
	c := startCluster(t)
	f := &follower{cluster: c}
	f.connect("a")
	f.read(10)
	c.kill("a")
	f.read(-1)
	f.connect("b")
	f.read(10)
	f.connect("c")
	f.read(10)
	c.kill("c")
	f.read(-1)
	f.connect("b")
	f.read(10)
	c.waitHealthy(c.nodes["a"]) // it is started again
	f.connect("a")
	f.read(10)
	c.kill("nats") // the connection stays, and goes on when the broker is back
	f.read(30)
}

// TestCluster: two pages on two nodes. When one of the nodes is killed, its page goes on at another one, with everything.
func TestCluster(t *testing.T) {
	c := startCluster(t)
	browser := chromium.Open(t)
	if err := chromedp.Do(browser); err != nil { // tabs are of a browser that runs
		t.Fatal(err)
	}
	open := func(tab string) page {
		ctx, cancel := chromedp.NewContext(browser)
		t.Cleanup(cancel)
		p := page{t, ctx} // its console may have errors: of the connection that breaks
		p.run(chromedp.Navigate("http://" + c.site + "?tab=" + tab))
		p.shows("#state", "open")
		p.shows("#node", c.nodeOf(tab))
		return p
	}
	first, second := "0", "1"
	for i := 2; c.nodeOf(first) == c.nodeOf(second); i++ {
		second = fmt.Sprint(i)
	}
	a, b := open(first), open(second)
	killed := c.nodeOf(first)
	a.wait(`count.received > 10`)
	c.kill(killed)
	a.wait(fmt.Sprintf(`node.value != "%s" && state.textContent == "open"`, killed))
	b.do(`document.getElementById("text").value = "hello"; document.forms[0].requestSubmit()`)
	for _, p := range []page{a, b} {
		p.shows("#messages", "hello")
		p.do(`globalThis.before = count.received`)
		p.wait(`count.received > before + 30`)
		p.wait(`count.missing + count.twice + count.gaps == 0`)
		pause, err := chromedp.Run(p.ctx, chromedp.Evaluate[float64](`count.pause`))
		t.Logf("longest pause %.0f ms %v", pause, err)
	}
}
