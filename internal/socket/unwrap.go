package socket

import (
	"errors"
	"net"
	"os"
	"reflect"
	"time"

	"github.com/pires/go-proxyproto"
)

// wrappers are the connections of listeners that pass everything on as it is, once a request has begun, and embed the
// connection below. What they have read and not yet passed on is taken from them (drain), so they can be left out. A type that
// is not here may change what goes through it, so it stays where it is.
//
// They are known by their names because most are not exported, and because caddy-l4 is no dependency of ours.
var wrappers = map[string]bool{
	caddyHTTP + "http2Conn":        true, // `protocols h1`: it looks for the first bytes of HTTP/2
	caddyHTTP + "tlsStateConn":     true, // what hides ConnectionState from net/http
	caddyHTTP + "http2StateConn":   true,
	caddyHTTP + "httpRedirectConn": true, // `http_redirect`: it looks for HTTP where TLS should begin
	layer4 + "Connection":          true, // `layer4`: it looks at what clients send first
	layer4 + "tlsConnection":       true,
}

const (
	caddyHTTP = "github.com/caddyserver/caddy/v2/modules/caddyhttp."
	layer4    = "github.com/mholt/caddy-l4/layer4."
)

// below returns the connection that a wrapper passes everything on to, or nil.
func below(conn net.Conn) net.Conn {
	switch c := conn.(type) {
	case *net.TCPConn, *net.UnixConn: // the usual ones need no reflection
		return nil
	case *proxyproto.Conn: // `proxy_protocol`: it reads the header in front
		return c.Raw()
	}
	v := reflect.Indirect(reflect.ValueOf(conn))
	t := v.Type()
	if !wrappers[t.PkgPath()+"."+t.Name()] {
		return nil
	}
	inner, _ := v.FieldByName("Conn").Interface().(net.Conn)
	return inner
}

// unwrap returns the connection below all wrappers that can be left out, and what they had already read from it.
func unwrap(conn net.Conn) (inner net.Conn, read []byte) {
	inner = below(conn)
	if inner == nil {
		return conn, nil
	}
	for next := below(inner); next != nil; next = below(inner) {
		inner = next
	}
	read, ok := drain(conn)
	if !ok {
		return conn, read
	}
	return inner, read
}

// drain returns what a connection's wrappers have read and not yet passed on. It reads with a deadline that has passed: what
// is in a buffer comes all the same, but the socket itself is not read any more. It reports whether the end was
// reached that way.
func drain(conn net.Conn) (read []byte, ok bool) {
	if conn.SetReadDeadline(time.Unix(1, 0)) != nil {
		return nil, false
	}
	defer conn.SetReadDeadline(time.Time{})
	var buf [512]byte
	for {
		n, err := conn.Read(buf[:])
		read = append(read, buf[:n]...)
		if err != nil {
			return read, errors.Is(err, os.ErrDeadlineExceeded)
		}
	}
}
