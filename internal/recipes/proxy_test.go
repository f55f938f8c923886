package recipes

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
	"github.com/caddy-broadcast/caddy-broadcast/internal/subprocess"
)

// somebody is the address of a client that is not on the proxy's machine. Linux has all of 127.0.0.0/8.
const somebody = "127.0.0.9"

// runProxy starts a proxy, and waits until it listens.
func (s *site) runProxy(addr, path string, args ...string) {
	s.T.Helper()
	cmd := exec.Command(path, args...)
	subprocess.DieWithParent(cmd)
	c := start(s.T, cmd)
	awaitListener(c, addr)
}

// awaitListener waits until a command listens.
func awaitListener(c *running, addr string) {
	c.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) { // another process has no event
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			conn.Close()
			return
		}
		if time.Now().After(deadline) {
			c.t.Fatal(err, c.out.String())
		}
	}
}

// nginx starts nginx with what the page has for its block http. It stays one process, which ends with the test.
func (s *site) nginx(blocks string) {
	s.T.Helper()
	s.runProxy(s.https, program(s.T, "nginx", "nginx"), "-e", "stderr", "-c", s.write("nginx.conf", fmt.Sprintf(`
		daemon off;
		master_process off;
		pid %[1]s/nginx.pid;
		events {}
		http {
			access_log off;
			client_body_temp_path %[1]s/body;
			proxy_temp_path %[1]s/proxy;
			fastcgi_temp_path %[1]s/fastcgi;
			uwsgi_temp_path %[1]s/uwsgi;
			scgi_temp_path %[1]s/scgi;
			%[2]s
		}`, s.dir, blocks)))
}

// nginxServer returns the block "Behind nginx" of the page, which passes requests on to an upstream.
func (s *site) nginxServer(r *recipe, upstream string) string {
	s.T.Helper()
	cert, key := caddytest.CertificateFiles(s.T, "example.com")
	return r.get("nginx", 0, "listen 443", "listen "+s.https, "/etc/ssl/example.com.pem", cert, "/etc/ssl/example.com.key", key,
		"/srv/app", s.dir+"/app", "127.0.0.1:8080", upstream)
}

// expectPasses does what every proxy has to let through: messages both ways, at once, and who the client is.
func (s *site) expectPasses(url string) {
	t := s.T
	t.Helper()
	// The client claims to be somebody else.
	c := s.mustVisit(somebody, strings.Replace(url, "http", "ws", 1), "X-Forwarded-For", "192.0.2.1", "X-Real-Ip", "192.0.2.1")
	stream := s.follow("curl -N -H 'Accept: text/event-stream' '" + url + "'")
	stream.wait("retry:")
	s.Send(c, "by the page")
	s.Expect(c, "by the page")
	stream.wait("data: by the page")
	s.expect("curl -d 'by a POST' '"+url+"'", `{"id":"`)
	s.Expect(c, "by a POST")
	stream.wait("data: by a POST")
	out := s.run("caddy broadcast connections")
	if !strings.Contains(out, somebody+" ") || strings.Contains(out, "192.0.2.1") {
		t.Errorf("the list of connections is\n%s", out)
	}
}

// expectLimit: of one client's connections 20 are let in, and those of another client too.
func (s *site) expectLimit() {
	t := s.T
	t.Helper()
	for range 20 {
		s.mustVisit("127.0.0.8", "wss://example.com/ws")
	}
	if _, resp, err := s.visit("127.0.0.8", "wss://example.com/ws"); err == nil || resp == nil || resp.StatusCode != 503 {
		t.Errorf("one connection too many: %v, %v", resp, err)
	}
	s.mustVisit("127.0.0.7", "wss://example.com/ws")
}

func testNginx(r *recipe) {
	s := newSite(r)
	backend := caddytest.FreePort(r)
	caddytest.Run(r, s.localize(r.get("caddyfile", 0, "example.com:8080", "example.com:"+backend)))
	s.write("app/index.html", "the page")
	s.nginx(s.nginxServer(r, "127.0.0.1:"+backend))
	s.expect("curl https://example.com/", "the page")
	s.expectPasses("https://example.com/ws")
	s.expect(r.get("sh", 0), somebody)
	s.expectLimit()
	if _, resp, err := s.visit(somebody, "wss://example.com/ws", "Origin", "https://elsewhere.org"); err == nil || resp == nil || resp.StatusCode != 403 {
		r.Errorf("a page of another site: %v, %v", resp, err)
	}
}

func testAnotherCaddy(r *recipe) {
	s := newSite(r)
	backend := caddytest.FreePort(r)
	s.write("app/index.html", "the page")
	caddytest.Run(r, s.localize(r.get("caddyfile", 1, "example.com:8080", "example.com:"+backend, "/srv/app", s.dir+"/app")))
	front := newSite(r)
	front.https, s.https = s.https, front.https
	config := front.localize(r.get("caddyfile", 0, "localhost:8080", "localhost:"+backend))
	file := front.write("Caddyfile", config)
	caddytest.StartProcess(r, os.Args[0], file, front.https)
	s.https = front.https
	s.write(".curlrc", "silent\ninsecure\nconnect-to = \":443:"+s.https+"\"\n")

	s.expect("curl https://example.com/", "the page")
	s.expectPasses("https://example.com/ws")
	s.expect(r.get("sh", 0), somebody)
	s.expectLimit()
	c := s.mustVisit("127.0.0.6", "wss://example.com/ws")
	front.write("Caddyfile", config+"\nhttp://reloaded.example.com {\n\trespond reloaded\n}\n")
	if out, err := front.shell("caddy reload --config " + file + " --adapter caddyfile").CombinedOutput(); err != nil {
		r.Fatal(string(out))
	}
	s.Publish("", "after the reload")
	s.Expect(c, "after the reload")
}
