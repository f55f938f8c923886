package recipes

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/coder/websocket"

	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
)

// serverCheck is the word that turns the checks of a server on, and not another one that begins with it.
var serverCheck = regexp.MustCompile(`(?m) check( |$)`)

// haproxy starts HAProxy with what the page has, and waits until it has found all servers healthy.
func (s *site) haproxy(config string) {
	s.T.Helper()
	dir, err := os.MkdirTemp("", "cb") // the test's is too long for the name of a socket
	if err != nil {
		s.T.Fatal(err)
	}
	s.T.Cleanup(func() { os.RemoveAll(dir) })
	config = "global\n\tstats socket " + dir + "/stats\n" + serverCheck.ReplaceAllString(config, " check inter 50ms fall 10000$1") // a check that is late on a busy machine is no failure
	s.runProxy(s.https, program(s.T, "haproxy", "haproxy"), "-db", "-f", s.write("haproxy.cfg", config))
	servers := strings.Count(config, " check ")
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) { // it does not tell
		var status string
		if c, err := net.Dial("unix", dir+"/stats"); err == nil {
			io.WriteString(c, "show stat\n")
			p, _ := io.ReadAll(c)
			c.Close()
			status = string(p)
		}
		if strings.Count(status, ",L4OK,")+strings.Count(status, ",L7OK,") == servers {
			return
		}
		if time.Now().After(deadline) {
			s.T.Fatal("not all servers are healthy:\n", status)
		}
	}
}

func testProxyProtocol(r *recipe) {
	s := newSite(r)
	caddy := *s
	caddy.https = caddytest.FreeAddr(r)
	caddytest.Run(r, caddy.localize(r.get("caddyfile", 0, "10.0.0.9/32", "127.0.0.1/32")))
	s.haproxy(r.get("haproxy", 0, "bind :443", "bind "+s.https, "10.0.0.1:443", caddy.https, "10.0.0.2:443", caddy.https))
	s.expectPasses("https://example.com/ws")
	s.expect(r.get("sh", 0), somebody)
	s.expectLimit()

	// A client that reaches Caddy itself is not believed.
	client := caddy.client("127.0.0.5")
	transport := client.Transport.(*http.Transport)
	dial := transport.DialContext
	transport.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := dial(ctx, network, addr)
		if err == nil {
			_, err = io.WriteString(c, "PROXY TCP4 192.0.2.1 192.0.2.2 1234 443\r\n")
		}
		return c, err
	}
	c, _, err := websocket.Dial(r.Context(), "wss://example.com/ws", &websocket.DialOptions{HTTPClient: client})
	if err != nil {
		r.Fatal(err)
	}
	defer c.CloseNow()
	if out := s.run("caddy broadcast connections"); strings.Contains(out, "192.0.2.1") || !strings.Contains(out, "127.0.0.5 ") {
		r.Errorf("a forged address is believed:\n%s", out)
	}
}

func testByRoom(r *recipe) {
	// All nodes are sites of one Caddy, which the load balancer does not know. Each says which one it is.
	var nodes [3]string
	global, node, _ := strings.Cut(r.get("caddyfile", 0, "10.0.0.9", "127.0.0.1"), "\n}\n")
	config := global + "\n}\n"
	for i := range nodes {
		nodes[i] = caddytest.FreeAddr(r)
		config += strings.Replace(node, "example.com {", fmt.Sprintf("example.com:%s {\n\theader X-Node %d", port(nodes[i]), i), 1)
	}
	addresses := []string{"10.0.0.1:80", nodes[0], "10.0.0.2:80", nodes[1], "10.0.0.3:80", nodes[2]}
	s := newSite(r)
	caddytest.Run(r, s.localize(config))

	s.expect(r.get("sh", 0, "10.0.0.1", nodes[0]), "HTTP/1.1 200 ")
	cert, key := caddytest.CertificateFiles(r, "example.com")
	var pem strings.Builder
	for _, name := range []string{cert, key} {
		p, err := os.ReadFile(name)
		if err != nil {
			r.Fatal(err)
		}
		pem.Write(p)
	}
	s.haproxy(r.get("haproxy", 0, append(addresses, "bind :443", "bind "+s.https, "/etc/haproxy/example.com.pem", s.write("example.com.pem", pem.String()))...))
	s.expectByRoom()
	s.expectPasses("https://example.com/ws?room=7")
	s.expect(r.get("sh", 1), somebody)

	s.nginxByRoom(r, addresses)
	s.expectByRoom()
	s.expectPasses("https://example.com/ws?room=8")

	// A machine without the broker lets nobody in.
	cut := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	defer cut.Close()
	addresses[1] = cut.Listener.Addr().String()
	s.nginxByRoom(r, addresses)
	for room := range 20 {
		s.mustVisit(somebody, fmt.Sprintf("wss://example.com/ws?room=%d", room))
	}
}

// nginxByRoom puts nginx in front, at another address.
func (s *site) nginxByRoom(r *recipe, addresses []string) {
	s.T.Helper()
	s.https = caddytest.FreeAddr(r)
	s.write(".curlrc", "silent\ninsecure\nconnect-to = \":443:"+s.https+"\"\n")
	s.nginx(r.get("nginx", 0, addresses...) + section(r, "Behind nginx", func(r *recipe) string { return s.nginxServer(r, "caddy") }))
}

// expectByRoom: all clients of a room are on one node, wherever they resume, and the rooms are on all nodes.
func (s *site) expectByRoom() {
	t := s.T
	t.Helper()
	used := make(map[string]bool)
	for room := 0; room < 10 || len(used) < 3; room++ {
		if room == 1000 {
			t.Fatalf("all rooms are on %v", used)
		}
		nodes := make(map[string]bool)
		for attempt := range 3 {
			_, resp, err := s.visit(somebody, fmt.Sprintf("wss://example.com/ws?last_id=ABCDEFGH-%d&room=%d", attempt, room))
			if err != nil {
				t.Fatal(resp, err)
			}
			nodes[resp.Header.Get("X-Node")] = true
			used[resp.Header.Get("X-Node")] = true
		}
		if len(nodes) != 1 || nodes[""] {
			t.Fatalf("room %d is on %v", room, nodes)
		}
	}
}
