package doctor_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
	"github.com/caddy-broadcast/caddy-broadcast/internal/doctor"
)

// issued is a certificate and its key.
type issued struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// issue makes a certificate for localhost, or for an authority if it has that name. It is self-signed without a parent.
func issue(t *testing.T, name string, parent *issued, change func(*x509.Certificate)) *issued {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		DNSNames: []string{"localhost"}, BasicConstraintsValid: true, IsCA: name != "localhost",
	}
	if change != nil {
		change(template)
	}
	signer := issued{template, key}
	if parent != nil {
		signer = *parent
	}
	der, err := x509.CreateCertificate(rand.Reader, template, signer.cert, key.Public(), signer.key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &issued{cert, key}
}

// tlsFront is a proxy with TLS in front of a Caddy. It shows these certificates, and has a header in each response.
func tlsFront(t *testing.T, target string, header http.Header, chain ...*issued) (port string) {
	t.Helper()
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "http", Host: target})
			r.Out.Host = r.In.Host
		},
		ModifyResponse: func(r *http.Response) error {
			for name, values := range header {
				r.Header[name] = values
			}
			return nil
		},
	}
	server := httptest.NewUnstartedServer(proxy)
	cert := tls.Certificate{PrivateKey: chain[0].key}
	for _, c := range chain {
		cert.Certificate = append(cert.Certificate, c.cert.Raw)
	}
	server.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	server.StartTLS()
	t.Cleanup(server.Close)
	return server.URL[strings.LastIndex(server.URL, ":")+1:]
}

func pool(c *issued) *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(c.cert)
	return p
}

// TestCertificates: what is wrong with a certificate is named, and the rest is looked at nevertheless.
func TestCertificates(t *testing.T) {
	port := caddytest.FreePort(t)
	caddytest.Start(t, "respond 404\n}\nhttp://:"+port+" {\nbind 127.0.0.1\nbroadcast /ws news")
	back := "127.0.0.1:" + port
	root := issue(t, "the root", nil, nil)
	between := issue(t, "between", root, nil)
	for _, c := range []struct {
		name        string
		chain       []*issued
		host, found string
		of, fix     string
	}{
		{name: "valid", chain: []*issued{issue(t, "localhost", between, nil), between}},
		{
			name: "self-signed", chain: []*issued{issue(t, "localhost", nil, nil)},
			found: "self-signed", of: "Caddyfile", fix: "localhost:PORT {\n\tbroadcast /ws\n}",
		},
		{
			name: "expired", chain: []*issued{issue(t, "localhost", between, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }), between},
			found: "has expired on", of: "Caddyfile", fix: "localhost:PORT {\n\tbroadcast /ws\n}",
		},
		{
			name: "of the future", chain: []*issued{issue(t, "localhost", between, func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Minute) }), between},
			found: "is not valid before",
		},
		{
			name: "for another name", chain: []*issued{issue(t, "localhost", between, nil), between}, host: "other.localhost",
			found: "the certificate is for localhost and not for other.localhost", of: "Caddyfile", fix: "other.localhost:PORT {\n\tbroadcast /ws\n}",
		},
		{
			name: "without the one between", chain: []*issued{issue(t, "localhost", between, nil)},
			found: "sends no intermediate certificate", of: "Caddyfile", fix: "tls fullchain.pem key.pem",
		},
		{
			name: "of Caddy", chain: []*issued{issue(t, "localhost", issue(t, "Caddy Local Authority - ECC Intermediate", nil, nil), nil)},
			found: "Caddy's own authority", of: "shell", fix: "caddy trust",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			port := tlsFront(t, back, nil, c.chain...)
			host := c.host
			if host == "" {
				host = "localhost"
			}
			o := options(t, "https://"+host+":"+port+"/ws")
			o.RootCAs = pool(root)
			r := run(t, o)
			finding(t, r, "websocket", doctor.OK, "it opens")
			if c.found == "" {
				healthy(t, r)
				finding(t, r, "tls", doctor.OK, "a certificate of between")
				return
			}
			f := finding(t, r, "tls", doctor.Problem, c.found)
			if c.of == "" {
				return
			}
			if text := lines(t, f, c.of); text != strings.Replace(c.fix, "PORT", port, 1) {
				t.Errorf("the fix is %q", text)
			}
		})
	}
	t.Run("trusted, as caddy trust does it", func(t *testing.T) {
		own := issue(t, "Caddy Local Authority - ECC Root", nil, nil)
		o := options(t, "https://localhost:"+tlsFront(t, back, nil, issue(t, "localhost", own, nil))+"/ws")
		o.RootCAs = pool(own)
		healthy(t, run(t, o))
	})
	t.Run("no TLS", func(t *testing.T) {
		f := finding(t, run(t, options(t, "https://localhost:"+port+"/ws")), "tls", doctor.Problem, "speaks no TLS, but probably plain HTTP")
		address, _, _ := strings.Cut(strings.TrimPrefix(f.Fix, "use "), " ")
		healthy(t, run(t, options(t, address)))
	})
	t.Run("TLS where none is expected", func(t *testing.T) {
		o := options(t, "http://localhost:"+tlsFront(t, back, nil, issue(t, "localhost", between, nil), between)+"/ws")
		f := finding(t, run(t, o), "route", doctor.Problem, "speaks TLS")
		fixed := options(t, strings.TrimPrefix(f.Fix, "use "))
		fixed.RootCAs = pool(root)
		healthy(t, run(t, fixed))
	})
	t.Run("HTTP/3 that is announced only", func(t *testing.T) {
		header := http.Header{"Alt-Svc": {`h3=":1"; ma=2592000`}}
		o := options(t, "https://localhost:"+tlsFront(t, back, header, issue(t, "localhost", between, nil), between)+"/ws")
		o.RootCAs, o.Wait = pool(root), time.Second
		f := finding(t, run(t, o), "http/3", doctor.Problem, "HTTP/3 is announced, but does not work on UDP port 1")
		if text := lines(t, f, "compose"); text != `- "1:1/udp"` {
			t.Errorf("the fix is %q", text)
		}
	})
}

// TestCaddyTLS: a Caddy with TLS, HTTP/2 and HTTP/3.
func TestCaddyTLS(t *testing.T) {
	port := caddytest.FreePort(t)
	const site = "auto_https off\nSERVERS\n---\nrespond 404\n}\nhttps://localhost:PORT {\nTLS\nbroadcast /ws news"
	names := strings.NewReplacer("PORT", port, "TLS", caddytest.Certificate(t))
	config := names.Replace(site)
	s := caddytest.Start(t, strings.Replace(config, "SERVERS", "", 1))
	address := "https://localhost:" + port + "/ws"
	r := run(t, options(t, address))
	finding(t, r, "tls", doctor.Problem, "self-signed")
	finding(t, r, "event stream", doctor.OK, "it opens over HTTP/2")
	finding(t, r, "http/2", doctor.OK, "GODEBUG=http2xconnect=1")
	finding(t, r, "http/3", doctor.OK, "WebSockets inside HTTP/3 work")

	t.Run("a name without a certificate", func(t *testing.T) {
		f := finding(t, run(t, options(t, "https://127.0.0.1:"+port+"/ws")), "tls", doctor.Problem, "the server has no certificate for 127.0.0.1")
		if text := lines(t, f, "Caddyfile"); text != "127.0.0.1:"+port+" {\n\tbroadcast /ws\n}" {
			t.Errorf("the fix is %q", text)
		}
	})
	t.Run("no HTTP/1.1", func(t *testing.T) {
		reload(t, s.Load, strings.Replace(config, "SERVERS", "servers :"+port+" {\nprotocols h2\n}", 1))
		f := finding(t, run(t, options(t, address)), "websocket", doctor.Problem, "does not speak HTTP/1.1")
		reload(t, s.Load, strings.Replace(config, "SERVERS", strings.Replace(lines(t, f, "Caddyfile"), "servers", "servers :"+port, 1), 1))
		finding(t, run(t, options(t, address)), "websocket", doctor.OK, "it opens")
	})
}

// TestTunnels: WebSockets inside HTTP/2 and HTTP/3, which a site offers and does not let through.
func TestTunnels(t *testing.T) {
	if testing.Short() {
		t.Skip("takes long")
	}
	port, api := caddytest.FreePort(t), caddytest.FreeAddr(t)
	file := filepath.Join(t.TempDir(), "Caddyfile")
	certificate := caddytest.Certificate(t)
	start := func(environment, servers, first string) doctor.Report {
		t.Helper()
		name, value, _ := strings.Cut(environment, "=")
		t.Setenv(name, value)
		config := "{\nadmin " + api + "\npersist_config off\nauto_https off\n" + servers + "\n}\n" +
			"https://localhost:" + port + " {\n" + certificate + "\nroute {\n" + first + "\nbroadcast /ws\n}\n}\n"
		if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
			t.Fatal(err)
		}
		cmd, ended := caddytest.StartProcess(t, os.Args[0], file, api, "127.0.0.1:"+port)
		defer func() { cmd.Process.Kill(); <-ended }()
		return run(t, options(t, "https://localhost:"+port+"/ws"))
	}
	const on, wrong = "GODEBUG=http2xconnect=1", "@connect method CONNECT\nrespond @connect 501"
	finding(t, start(on, "", ""), "http/2", doctor.OK, "WebSockets inside HTTP/2 work")
	r := start(on, "", wrong)
	f := finding(t, r, "http/2", doctor.Problem, "WebSockets inside HTTP/2 are offered, but do not work: the handshake got the response 501")
	f3 := finding(t, r, "http/3", doctor.Problem, "WebSockets inside HTTP/3 are offered, but do not work")
	r = start(lines(t, f, "environment"), lines(t, f3, "Caddyfile"), wrong)
	finding(t, r, "http/2", doctor.OK, "offers no WebSockets inside it")
	finding(t, r, "http/3", doctor.OK, "HTTP/3 is not announced")
}
