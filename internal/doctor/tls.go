package doctor

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// certificate looks at the TLS handshake and the certificate.
var certificate = Check{
	Name: "tls", About: "the TLS handshake, and whether clients trust the certificate", needs: aConnection,
	run: func(ctx context.Context, x *exam) []Finding {
		if !x.secure {
			x.has[aServer] = true
			return nil
		}
		var state tls.ConnectionState
		err := twice(func() (err error) {
			state, err = x.shake(ctx)
			return err
		})
		if err != nil {
			return []Finding{x.noTLS(err)}
		}
		x.has[aServer] = true
		if err := verify(state, x.host, x.RootCAs); err != nil {
			// The other checks go on without it, because there may be more to find.
			x.trusted = false
			return []Finding{untrusted(x, state, err)}
		}
		cert := state.PeerCertificates[0]
		left := time.Until(cert.NotAfter)
		text := fmt.Sprintf("%s, a certificate of %s that is valid for %d days", tls.VersionName(state.Version), issuer(cert), int(left.Hours()/24))
		// Caddy renews a certificate when a third of its life is left.
		if life := cert.NotAfter.Sub(cert.NotBefore); left < life/10 {
			return []Finding{advice("%s: it should have been renewed by now", text).fixedBy("look for the reason in Caddy's log, from the logger tls.renew")}
		}
		return []Finding{ok("%s", text)}
	},
}

// shake makes a TLS handshake as a browser does that opens a WebSocket, and accepts any certificate.
func (x *exam) shake(ctx context.Context) (tls.ConnectionState, error) {
	ctx, cancel := context.WithTimeout(ctx, x.Wait)
	defer cancel()
	c, err := x.dial(ctx)
	if err != nil {
		return tls.ConnectionState{}, err
	}
	defer c.Close()
	conn := tls.Client(c, &tls.Config{ServerName: x.host, NextProtos: []string{"http/1.1"}, InsecureSkipVerify: true})
	err = conn.HandshakeContext(ctx)
	return conn.ConnectionState(), err
}

// verify checks a certificate as Go's client does.
func verify(state tls.ConnectionState, host string, roots *x509.CertPool) error {
	between := x509.NewCertPool()
	for _, c := range state.PeerCertificates[1:] {
		between.AddCert(c)
	}
	_, err := state.PeerCertificates[0].Verify(x509.VerifyOptions{DNSName: host, Roots: roots, Intermediates: between})
	return err
}

func issuer(c *x509.Certificate) string {
	if c.Issuer.CommonName != "" {
		return visible(c.Issuer.CommonName)
	}
	return visible(c.Issuer.String())
}

// noTLS says why there is no TLS.
func (x *exam) noTLS(err error) Finding {
	// An alert of the peer is of a type that crypto/tls does not export.
	alert := func(names ...string) bool {
		return slices.ContainsFunc(names, func(name string) bool { return strings.HasSuffix(err.Error(), "remote error: tls: "+name) })
	}
	switch {
	case errors.As(err, new(tls.RecordHeaderError)):
		u := *x.URL
		u.Scheme = "http"
		return problem("port %s speaks no TLS, but probably plain HTTP", x.port).fixedBy(
			"use "+u.Redacted()+" there, or give the site an address with https",
			caddyfile("", fmt.Sprintf("https://%s {\n\tbroadcast %s\n}", x.URL.Host, x.path())))
	// Caddy's alert if it has no certificate for the name.
	case alert("internal error", "unrecognized name"):
		return problem("the server has no certificate for %s (%v)", x.host, err).fixedBy(
			"give the site this name, for which Caddy gets a certificate; if it has the name, look for the reason in Caddy's log, from the logger tls.obtain",
			caddyfile("", fmt.Sprintf("%s {\n\tbroadcast %s\n}", x.URL.Host, x.path())))
	case alert("no application protocol"):
		return noHTTP1()
	case errors.Is(err, io.EOF):
		err = errors.New("the server closed the connection")
	}
	return problem("the TLS handshake failed: %v", err).fixedBy("look for the reason in the log of what listens on port " + x.port)
}

// noHTTP1 is about a server that speaks only newer versions of HTTP. If it is written in Go, the TLS handshake succeeds
// nevertheless, and the connection is closed.
func noHTTP1() Finding {
	return problem("the server does not speak HTTP/1.1, which browsers use for WebSockets").fixedBy(
		"let it speak that too", caddyfile("the global options", "servers {\n\tprotocols h1 h2 h3\n}"))
}

// untrusted says what is wrong with a certificate.
func untrusted(x *exam, state tls.ConnectionState, err error) Finding {
	cert := state.PeerCertificates[0]
	site := caddyfile("", fmt.Sprintf("%s {\n\tbroadcast %s\n}", x.URL.Host, x.path()))
	files := nginx("server, if it has the certificate", "ssl_certificate     fullchain.pem;\nssl_certificate_key key.pem;")
	invalid, name, unknown := x509.CertificateInvalidError{}, x509.HostnameError{}, x509.UnknownAuthorityError{}
	switch {
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired && time.Now().Before(cert.NotBefore):
		return problem("the certificate is not valid before %s", cert.NotBefore.Format(time.DateTime)).fixedBy(
			"set the clock of this machine, or of the one that made the certificate")
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return problem("the certificate has expired on %s", cert.NotAfter.Format(time.DateTime)).fixedBy(
			"remove the site's directive tls with the names of its files, so that Caddy gets and renews the certificate itself", site, files)
	case errors.As(err, &name):
		return problem("the certificate is for %s and not for %s", strings.Join(cert.DNSNames, ", "), x.host).fixedBy(
			"give the site this name, for which Caddy gets a certificate, or use a name that the certificate has", site)
	case errors.As(err, &unknown) && strings.HasPrefix(issuer(cert), "Caddy Local Authority"):
		return problem("the certificate is by Caddy's own authority, which only machines trust that it was installed on").fixedBy(
			"install the authority on this machine, where Caddy runs; for other visitors give the site a public name, without tls internal", shell("caddy trust"))
	case errors.As(err, &unknown) && cert.Issuer.String() == cert.Subject.String():
		return problem("the certificate is self-signed, so no browser trusts it").fixedBy(
			"remove the site's directive tls with the names of its files, so that Caddy gets a certificate itself; the site needs a public name for that", site, files)
	case errors.As(err, &unknown) && len(state.PeerCertificates) == 1:
		return problem("the certificate is by %s, which is not trusted here, and the server sends no intermediate certificate", issuer(cert)).fixedBy(
			"have the file of the certificate begin with it and go on with the certificates of those who issued it (fullchain.pem)",
			caddyfile("the site", "tls fullchain.pem key.pem"), files)
	}
	return problem("the certificate is not trusted: %v", err).fixedBy("use a certificate of an authority that browsers know: Caddy gets one for a site with a public name", site)
}
