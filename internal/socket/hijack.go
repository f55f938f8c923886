package socket

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"time"
)

// flushTimeout is how long a client may accept no data of the response that precedes the takeover.
const flushTimeout = 10 * time.Second

// Hijack takes an HTTP/1 connection over from the server, and returns what the server had already read after the request.
// Before that it calls answer, which writes the response to w.
//
// The response goes through Caddy's writers, so that they add headers to it and log it. The takeover goes around them:
// none of them is an http.Hijacker. Since caddyserver/caddy#7913 every one is wrapped in an IdleTimeoutWriter, which can only
// be unwrapped.
func Hijack(w http.ResponseWriter, answer func() error) (conn net.Conn, early []byte, err error) {
	hijacker, ok := Base(w).(http.Hijacker)
	if !ok {
		return nil, nil, fmt.Errorf("the connection cannot be taken over: %w", http.ErrNotSupported)
	}
	if err := answer(); err != nil {
		return nil, nil, err
	}
	conn, brw, err := hijacker.Hijack()
	if err != nil {
		return nil, nil, err
	}
	conn.SetWriteDeadline(time.Now().Add(flushTimeout)) // Hijack cleared the server's own deadlines
	if err := brw.Flush(); err != nil {
		conn.Close()
		return nil, nil, err
	}
	conn.SetWriteDeadline(time.Time{})
	if n := brw.Reader.Buffered(); n > 0 { // the client did not wait for the response
		p, _ := brw.Reader.Peek(n)
		early = bytes.Clone(p)
	}
	return conn, early, nil
}

// CanHijack reports whether the connection can be taken over.
func CanHijack(w http.ResponseWriter) bool {
	_, ok := Base(w).(http.Hijacker)
	return ok
}

// Base returns the innermost writer, which is the server's own.
func Base(w http.ResponseWriter) http.ResponseWriter {
	for {
		inner, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			return w
		}
		w = inner.Unwrap()
	}
}
