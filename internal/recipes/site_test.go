package recipes

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/coder/websocket"

	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
)

// site is what people reach at the names of a recipe: https://example.com, and the commands caddy, curl and ssh of a terminal on
// its server. Where a Caddy of this process serves it, the admin address is that one's.
type site struct {
	*caddytest.Server
	https, http string // the addresses for the ports 443 and 80
	dir         string // of the terminal
}

// newSite returns a site that nobody serves yet.
func newSite(r *recipe) *site {
	r.Helper()
	s := &site{
		Server: &caddytest.Server{T: r.T, Admin: caddytest.FreeAddr(r), Log: filepath.Join(r.TempDir(), "log")},
		https:  caddytest.FreeAddr(r), http: caddytest.FreeAddr(r), dir: r.TempDir(),
	}
	s.Addr = s.http
	s.write("bin/caddy", fmt.Sprintf("#!/bin/sh\n%s=1 CADDY_ADMIN=%s exec %s \"$@\"\n", caddytest.AsCaddy, s.Admin, os.Args[0]))
	s.write(".curlrc", fmt.Sprintf("silent\nshow-error\ninsecure\nconnect-to = \":443:%s\"\nconnect-to = \":80:%s\"\n", s.https, s.http))
	return s
}

// serve has a Caddy of this process serve a configuration.
func serve(r *recipe, config string) *site {
	r.Helper()
	s := newSite(r)
	caddytest.Run(r, s.localize(config))
	return s
}

func port(addr string) string { return addr[strings.LastIndexByte(addr, ':')+1:] }

// sites are the lines that begin a site that has certificates.
var sites = regexp.MustCompile(`(?m)^([a-z*][a-z.]*\.com) \{$`)

// localize returns a configuration as printed, with other ports and a certificate that nobody has to be asked for.
func (s *site) localize(config string) string {
	s.T.Helper()
	options := "{\n\tpersist_config off\n\tauto_https disable_redirects\n\thttp_port " + port(s.http) + "\n\thttps_port " + port(s.https) +
		"\n\tlog {\n\t\toutput file " + s.Log + "\n\t}\n"
	if !strings.Contains(config, "\tadmin ") {
		options += "\tadmin " + s.Admin + "\n"
	}
	if rest, ok := strings.CutPrefix(config, "{\n"); ok {
		config = options + rest
	} else {
		config = options + "}\n" + config
	}
	names := []string{"localhost"}
	for _, m := range sites.FindAllStringSubmatch(config, -1) {
		names = append(names, m[1])
	}
	cert, key := caddytest.CertificateFiles(s.T, names...)
	return sites.ReplaceAllString(config, "$0\n\ttls "+cert+" "+key)
}

// write writes a file of the terminal's directory.
func (s *site) write(name, text string) (path string) {
	s.T.Helper()
	path = filepath.Join(s.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		s.T.Fatal(err)
	}
	mode := os.FileMode(0o600)
	if strings.HasPrefix(text, "#!") {
		mode = 0o700
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		s.T.Fatal(err)
	}
	return path
}

// client returns an HTTP client that connects from an address of this machine, such as 127.0.0.1, and finds the site's names.
func (s *site) client(from string) *http.Client {
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	transport := &http.Transport{
		DisableCompression: true, // it would hold events back
		TLSClientConfig:    &tls.Config{InsecureSkipVerify: true},
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			switch port(addr) {
			case "443":
				addr = s.https
			case "80":
				addr = s.http
			}
			return dialer.DialContext(ctx, network, addr)
		},
	}
	s.T.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// visit opens a WebSocket, as the page of https://example.com does at another address of this machine. Header fields are pairs
// of name and value.
func (s *site) visit(from, url string, header ...string) (*websocket.Conn, *http.Response, error) {
	s.T.Helper()
	o := &websocket.DialOptions{HTTPClient: s.client(from), HTTPHeader: http.Header{}}
	for i := 0; i < len(header); i += 2 {
		if o.HTTPHeader.Set(header[i], header[i+1]); header[i] == "Sec-WebSocket-Protocol" {
			o.Subprotocols = header[i+1 : i+2]
		}
	}
	if o.HTTPHeader.Get("Origin") == "" {
		o.HTTPHeader.Set("Origin", strings.Replace(url[:strings.Index(url, "com")+3], "ws", "http", 1))
	}
	var c *websocket.Conn
	var resp *http.Response
	err := caddytest.UntilAnswered(func() (err error) {
		c, resp, err = websocket.Dial(s.T.Context(), url, o)
		return err
	})
	if c != nil {
		s.T.Cleanup(func() { c.CloseNow() })
	}
	return c, resp, err
}

// mustVisit is visit for a client that the site lets in.
func (s *site) mustVisit(from, url string, header ...string) *websocket.Conn {
	s.T.Helper()
	c, resp, err := s.visit(from, url, header...)
	if err != nil {
		s.T.Fatal(resp, err)
	}
	return c
}

// get does a GET and returns the status and the body.
func (s *site) get(url string) (int, string) {
	s.T.Helper()
	resp, err := s.client("127.0.0.1").Get(url)
	if err != nil {
		s.T.Fatal(err)
	}
	return resp.StatusCode, readAll(s.T, resp)
}

// program returns the path of a program. Without it the test is skipped, except in CI, where it fails.
func program(t testing.TB, name, debian string) string {
	t.Helper()
	for _, path := range []string{name, filepath.Join("/usr/sbin", name)} {
		if path, err := exec.LookPath(path); err == nil {
			return path
		}
	}
	if os.Getenv("CI") != "" {
		t.Fatalf("CI has no %s", name)
	}
	t.Skipf("there is no %s: apt install %s", name, debian)
	return ""
}
