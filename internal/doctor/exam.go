package doctor

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/internal/protocol"
	v1 "github.com/caddy-broadcast/caddy-broadcast/internal/protocol/v1"
)

// exam is one run: what was asked for, and what was found out so far.
type exam struct {
	Options
	has map[need]bool

	host, port string // of the URL; the port is always there
	secure     bool   // TLS
	page       string // the origin of the page whose requests these are
	addrs      []string
	trusted    bool // the certificate is valid for the name
	client     *http.Client

	version   int             // of HTTP, as the probe has negotiated it
	altSvc    string          // the header Alt-Svc
	proxy     string          // what is in front of Caddy, or ""
	rejected  bool            // by the route, whose log says why
	epochs    map[string]bool // of all hellos
	heartbeat time.Duration   // of the route
	deflated  bool            // permessage-deflate was negotiated
	// The route has the option subscribe off.
	publishOnly bool
	inside      *inside // nil until it was asked for
	closers     []func()
}

func newExam(o Options) *exam {
	x := &exam{Options: o, has: map[need]bool{nothing: true}, epochs: make(map[string]bool), trusted: true}
	x.Wait = cmp.Or(x.Wait, 10*time.Second)
	x.has[aURL] = o.URL != nil
	x.has[anAPI] = o.Admin != nil
	if o.URL == nil {
		return x
	}
	x.secure = o.URL.Scheme == "https"
	x.host = o.URL.Hostname()
	x.port = cmp.Or(o.URL.Port(), map[bool]string{false: "80", true: "443"}[x.secure])
	x.page = cmp.Or(o.Origin, o.URL.Scheme+"://"+o.URL.Host)
	x.client = &http.Client{
		Transport: &http.Transport{
			DialContext:        func(ctx context.Context, _, _ string) (net.Conn, error) { return x.dial(ctx) },
			TLSClientConfig:    x.tls(),
			ForceAttemptHTTP2:  true,
			DisableCompression: true, // what a proxy compresses has to be seen
		},
		// A browser's WebSocket follows no redirect, so none is followed here.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	x.closers = append(x.closers, x.client.CloseIdleConnections)
	return x
}

func (x *exam) close() {
	for _, f := range x.closers {
		f()
	}
}

// tls returns the configuration of TLS connections. What is wrong with the certificate is the finding of one check, and the
// others go on as if it was valid: there may be more to find.
func (x *exam) tls(protocols ...string) *tls.Config {
	return &tls.Config{
		ServerName: x.host, RootCAs: x.RootCAs, NextProtos: protocols, InsecureSkipVerify: true,
		VerifyConnection: func(state tls.ConnectionState) error {
			if !x.trusted {
				return nil
			}
			return verify(state, x.host, x.RootCAs)
		},
	}
}

// dial opens a TCP connection to the first of the server's addresses that accepts one.
func (x *exam) dial(ctx context.Context) (c net.Conn, err error) {
	for _, addr := range x.addrs {
		if c, err = dialTCP(ctx, addr); err == nil {
			return c, nil
		}
	}
	return nil, err
}

func dialTCP(ctx context.Context, addr string) (c net.Conn, err error) {
	err = twice(func() (err error) {
		c, err = new(net.Dialer).DialContext(ctx, "tcp", addr)
		return err
	})
	return c, err
}

// twice does something again if its connection broke. While Caddy reloads its configuration, connections that wait at the
// listener of the old one are lost, and that is nothing to report.
func twice(do func() error) error {
	err := do()
	if errors.Is(err, syscall.ECONNRESET) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = do()
	}
	return err
}

// target returns the route's URL with more parameters in its query.
func (x *exam) target(query ...string) *url.URL {
	u := *x.URL
	values := u.Query()
	for i := 0; i < len(query); i += 2 {
		values.Set(query[i], query[i+1])
	}
	u.RawQuery, u.User, u.Fragment = values.Encode(), nil, ""
	return &u
}

// header returns the fields of a request to the route.
func (x *exam) header(origin string) http.Header {
	h := http.Header{"User-Agent": {"caddy broadcast doctor"}}
	maps.Copy(h, x.Header.Clone())
	if user := x.URL.User; user != nil && h.Get("Authorization") == "" {
		r := http.Request{Header: h}
		password, _ := user.Password()
		r.SetBasicAuth(user.Username(), password)
	}
	if origin != "" {
		h.Set("Origin", origin)
	}
	return h
}

// response is a response, with the beginning of its body.
type response struct {
	*http.Response
	text string
}

// maxText is how much of a body is looked at: enough to recognize a page.
const maxText = 4 << 10

// isPage reports whether a response is a web page.
func (r response) isPage() bool { return strings.HasPrefix(r.Header.Get("Content-Type"), "text/html") }

// reason returns the reason that a route gives for a rejection: one line of text.
func (r response) reason() string {
	text := strings.TrimSpace(r.text)
	if !strings.HasPrefix(r.Header.Get("Content-Type"), "text/plain") || strings.Contains(text, "\n") || len(text) > 500 {
		return ""
	}
	return visible(text)
}

// probe asks the route whether it would let the client connect. The request subscribes to nothing (docs/protocol.md, "Why a
// connection fails").
func (x *exam) probe(ctx context.Context, origin string, more func(*http.Request)) (response, error) {
	ctx, cancel := context.WithTimeout(ctx, x.Wait)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, x.target(protocol.QueryParameter, v1.Name).String(), nil)
	if err != nil {
		return response{}, err
	}
	r.Header = x.header(origin)
	if more != nil {
		more(r)
	}
	var resp *http.Response
	err = twice(func() (err error) {
		resp, err = x.client.Do(r)
		return err
	})
	if err != nil {
		return response{}, plainError(err)
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(resp.Body, maxText)) // its beginning is enough
	return response{resp, string(text)}, nil
}

// plainError returns an error without what net/http says in front of it: the method and the URL, which is known.
func plainError(err error) error {
	if failed := new(url.Error); errors.As(err, &failed) {
		return failed.Err
	}
	return err
}

// visible returns s without control characters, which a terminal would obey.
func visible(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return ' '
		}
		return r
	}, s)
}

// path returns the URL's path as a matcher has it.
func (x *exam) path() string { return cmp.Or(x.URL.Path, "/") }
