package socket

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"time"
)

// flushTimeout is how long a client may take nothing of the answer that makes the connection ours.
const flushTimeout = 10 * time.Second

// Hijack takes an HTTP/1 connection over from the server, after answer has answered by way of w, and returns what the
// server had read of what comes after the request. Caddy's writers, which add to the head of an answer and log it, are
// no http.Hijackers: they unwrap to one.
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
	conn.SetWriteDeadline(time.Now().Add(flushTimeout)) // the server's own deadlines ended with Hijack
	if err := brw.Flush(); err != nil {
		conn.Close()
		return nil, nil, err
	}
	conn.SetWriteDeadline(time.Time{})
	if n := brw.Reader.Buffered(); n > 0 { // a hasty client
		p, _ := brw.Reader.Peek(n)
		early = bytes.Clone(p)
	}
	return conn, early, nil
}

// CanHijack says whether there is a connection that can be taken over.
func CanHijack(w http.ResponseWriter) bool {
	_, ok := Base(w).(http.Hijacker)
	return ok
}

// Base returns the server's own writer.
func Base(w http.ResponseWriter) http.ResponseWriter {
	for {
		inner, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			return w
		}
		w = inner.Unwrap()
	}
}
