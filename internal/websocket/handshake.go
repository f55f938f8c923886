package websocket

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket"
)

// IsRequest reports whether a request asks for a WebSocket, whether or not its handshake is valid: an invalid one has to get
// an error that says so, and not what the route serves to others.
func IsRequest(r *http.Request) bool { return websocket.IsWebSocketUpgrade(r) || isTunnel(r) }

// isTunnel reports whether a request asks for a WebSocket inside HTTP/2 (RFC 8441) or HTTP/3 (RFC 9220).
func isTunnel(r *http.Request) bool {
	// Go's HTTP/2 leaves the pseudo-header in Header, and quic-go puts its value in Proto.
	return r.Method == http.MethodConnect &&
		(r.ProtoMajor == 2 && r.Header.Get(":protocol") == "websocket" || r.ProtoMajor == 3 && r.Proto == "websocket")
}

// checkRequest rejects what gorilla would let pass, and returns the subprotocols that the client offers.
func checkRequest(r *http.Request) (offered []string, err error) {
	if !r.ProtoAtLeast(1, 1) {
		return nil, errors.New("a WebSocket needs HTTP/1.1 (RFC 6455, section 4.1)")
	}
	// A body would be read as the client's first frames, or by a proxy in front as another request.
	if !isTunnel(r) && (r.ContentLength != 0 || len(r.TransferEncoding) > 0) {
		return nil, errors.New("the handshake has a body")
	}
	// They must not be there twice (RFC 6455, section 11.3): a proxy in front might read another one than gorilla does.
	for _, name := range []string{"Sec-Websocket-Key", "Sec-Websocket-Version"} {
		if n := len(r.Header[name]); n > 1 {
			return nil, fmt.Errorf("the handshake has %d %s headers (RFC 6455, section 11.3)", n, name)
		}
	}
	for _, line := range r.Header["Sec-Websocket-Protocol"] {
		for name := range strings.SplitSeq(line, ",") {
			name = strings.TrimSpace(name)
			if !isToken(name) {
				return nil, fmt.Errorf("the subprotocol %q is not a token (RFC 6455, section 4.1)", name)
			}
			offered = append(offered, name)
		}
	}
	return offered, nil
}

// isToken reports whether s is a token of HTTP (RFC 2616, section 2.2, which RFC 6455 refers to).
func isToken(s string) bool {
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c >= 0x7f || strings.IndexByte(`()<>@,;:\"/[]?={}`, c) >= 0 {
			return false
		}
	}
	return s != ""
}

// offersDeflate reports whether the client offers permessage-deflate in a way that gorilla's only answer accepts, which
// is without context takeover, and whether the first such offer limits our window, which the answer has to confirm.
func offersDeflate(h http.Header) (ok, window bool) {
	for _, line := range h["Sec-Websocket-Extensions"] {
		for offer := range strings.SplitSeq(line, ",") {
			name, params, _ := strings.Cut(offer, ";")
			if strings.TrimSpace(name) != "permessage-deflate" {
				continue
			}
			if ok, window = acceptable(params); ok {
				return true, window
			}
		}
	}
	return false, false
}

// acceptable reports whether the parameters of an offer of permessage-deflate are valid (RFC 7692, section 7.1) and ask
// for no smaller window than that of compress/flate, and whether they ask for exactly that one.
func acceptable(params string) (ok, window bool) {
	var seen []string
	for p := range strings.SplitSeq(params, ";") {
		name, value, has := strings.Cut(p, "=")
		name, value = strings.TrimSpace(name), strings.Trim(strings.TrimSpace(value), `"`)
		bits, err := strconv.Atoi(value)
		switch valid := err == nil && bits >= 8 && bits <= 15 && value[0] != '0' && value[0] != '+'; {
		case params == "": // there are none, and Split has made one that is empty
		case slices.Contains(seen, name):
			return false, false
		case name == "client_no_context_takeover" && !has, name == "server_no_context_takeover" && !has:
		case name == "client_max_window_bits" && (!has || valid):
		case name == "server_max_window_bits" && valid && bits == 15:
			window = true
		default:
			return false, false
		}
		seen = append(seen, name)
	}
	return true, window
}

// handshakeError is what gorilla says of a handshake.
type handshakeError struct {
	status int
	err    error
}

func (e *handshakeError) Error() string { return e.err.Error() }

// upgrade has gorilla check the handshake and compose the response, and returns its headers. Gorilla only sees a fake
// connection, because it can just write to a hijacked one: our response has to go through Caddy's writers (which log it
// and add headers, and are not http.Hijackers but unwrap to one), after the client was subscribed, and inside HTTP/2 and 3
// there is nothing to hijack.
func upgrade(r *http.Request, subprotocol string, deflate bool) (http.Header, error) {
	var header http.Header
	if subprotocol != "" {
		header = http.Header{"Sec-Websocket-Protocol": {subprotocol}}
	}
	upgrader := websocket.Upgrader{
		ReadBufferSize:    1,              // we read
		WriteBufferPool:   new(sync.Pool), // we write: gorilla takes a buffer only when it does
		EnableCompression: deflate,
		CheckOrigin:       func(*http.Request) bool { return true }, // the route has checked it
	}
	var response fakeConn
	if _, err := upgrader.Upgrade(&response, asHTTP1(r), header); err != nil {
		if response.status == http.StatusMethodNotAllowed { // 405 would have to name the methods of other handlers, too
			response.status = http.StatusBadRequest
		}
		return nil, &handshakeError{response.status, err}
	}
	head, err := http.ReadResponse(bufio.NewReaderSize(&response.written, 512), nil)
	if err != nil {
		return nil, &handshakeError{http.StatusInternalServerError, fmt.Errorf("reading the response to the handshake: %w", err)}
	}
	return head.Header, nil
}

// asHTTP1 returns the handshake in the form that gorilla knows: that of HTTP/2 and 3 says the same with other headers (RFC
// 8441, section 5).
func asHTTP1(r *http.Request) *http.Request {
	if !isTunnel(r) {
		return r
	}
	r1 := *r
	r1.Method = http.MethodGet
	r1.Header = r.Header.Clone()
	r1.Header.Set("Connection", "Upgrade")
	r1.Header.Set("Upgrade", "websocket")
	r1.Header.Set("Sec-Websocket-Key", "AAAAAAAAAAAAAAAAAAAAAA==") // a tunnel has none, and its response nothing made of it
	return &r1
}

// fakeConn is the response writer and the hijacked connection that gorilla writes to. Gorilla is stock, so this depends on
// what its Upgrade calls; TestHandshake fails if a new version calls more.
type fakeConn struct {
	net.Conn // nil: gorilla calls only the methods below
	status   int
	written  bytes.Buffer
}

func (c *fakeConn) Header() http.Header         { return make(http.Header) }
func (c *fakeConn) WriteHeader(status int)      { c.status = status }
func (c *fakeConn) Write(p []byte) (int, error) { return c.written.Write(p) }
func (c *fakeConn) SetDeadline(time.Time) error { return nil }
func (c *fakeConn) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	// Gorilla puts the response into the writer's buffer: 512 bytes are enough for all but a very long subprotocol.
	return c, bufio.NewReadWriter(bufio.NewReaderSize(nil, 16), bufio.NewWriterSize(nil, 512)), nil
}
