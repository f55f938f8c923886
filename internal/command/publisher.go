package command

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
)

const (
	// retryTimeout is how long a request is retried. After two minutes the hub forgets its key, and would publish its
	// messages again.
	retryTimeout = 100 * time.Second

	// The first retries come soon, because a reload takes a moment only. The delay doubles up to the longest, which
	// keeps a server that has no room from being asked all the time.
	firstDelay, longestDelay = 50 * time.Millisecond, 5 * time.Second
)

// publisher publishes through the admin API. It retries a request whose outcome is unknown, or that the hub has no room
// for. Requests carry keys, so that a message is published only once however often it is sent.
//
// It has an HTTP client of its own because caddycmd.AdminAPIRequest reports every status from 400 on as one error text.
type publisher struct {
	client *http.Client
	origin string // of the URL. DialContext does not use it
	local  bool   // the API is on a Unix socket, and rejects the header Origin
	worked bool   // the API has responded before, so if it is gone it will probably return
}

// httpError is a response with a status of 400 or above.
type httpError struct {
	status int
	text   string
	later  bool // it has a Retry-After
}

func (e *httpError) Error() string { return fmt.Sprintf("HTTP %d: %s", e.status, e.text) }

// newPublisher returns a publisher with one client, whose connections are kept for the next request. It sends nothing.
func newPublisher(a api) (*publisher, error) {
	addr, err := caddy.ParseNetworkAddress(a.address)
	// One address, as caddycmd wants it too.
	if err != nil || addr.PortRangeSize() > 1 {
		return nil, fmt.Errorf("invalid admin address %s: %w", a.address, err)
	}
	dial, origin := addr.JoinHostPort(0), "http://"+addr.JoinHostPort(0)
	if addr.IsUnixNetwork() || addr.IsFdNetwork() {
		dial, _, _ = strings.Cut(dial, "|") // without the socket's permissions
		// The host of a URL may not be empty or invalid (golang/go#60374), though it is not used. caddycmd sends the
		// same.
		origin = "http://127.0.0.1"
	}
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, addr.Network, dial)
	}}
	return &publisher{client: &http.Client{Transport: transport}, origin: origin, local: addr.IsUnixNetwork() || addr.IsFdNetwork()}, nil
}

// publish sends a request, with retries, and returns the body of the response.
func (p *publisher) publish(ctx context.Context, query url.Values, header http.Header, body []byte) ([]byte, error) {
	began, delay := time.Now(), firstDelay
	for {
		answer, wait, err := p.try(ctx, query, header, body)
		if err == nil {
			// From now on a refused connection is taken for a restart.
			p.worked = true
			return answer, nil
		}
		// The wait counts: an attempt after the time could come when the hub has forgotten the key, and publish twice.
		if !p.retryable(err) || time.Since(began)+wait > retryTimeout {
			return nil, err
		}
		// At random between 0 and the delay, so that publishers that failed together do not retry together.
		wait = max(wait, time.Duration(rand.Int64N(int64(delay))))
		delay = min(2*delay, longestDelay)
		select {
		case <-time.After(wait):
		// It does not end with Caddy, which runs commands with the background's context (Main in cmd/main.go of 2.11.9):
		// Ctrl-C ends the process. The last error says more than that of the context.
		case <-ctx.Done():
			return nil, err
		}
	}
}

// try sends the request once. Wait is the response's Retry-After. A response that breaks off is an error like none at all: the
// message may have been published, and the key makes it safe to ask again.
func (p *publisher) try(ctx context.Context, query url.Values, header http.Header, body []byte) (answer []byte, wait time.Duration, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, p.origin+"/broadcast/publish?"+query.Encode(), bytes.NewReader(body))
	if err != nil {
		return nil, 0, err
	}
	// A copy, because the caller's is sent again with each attempt.
	r.Header = header.Clone()
	if !p.local {
		r.Header.Set("Origin", p.origin) // Caddy checks it if enforce_origin is on
	}
	resp, err := p.client.Do(r)
	if err != nil {
		return nil, 0, err
	}
	defer resp.Body.Close()
	answer, err = io.ReadAll(resp.Body)
	if err != nil {
		return nil, 0, fmt.Errorf("reading the response: %w", err)
	}
	if resp.StatusCode < 400 {
		return answer, 0, nil
	}
	// The hub sends Retry-After as seconds. A date, which RFC 9110, section 10.2.3, allows too, is taken for none.
	seconds, _ := strconv.Atoi(resp.Header.Get("Retry-After"))
	return nil, time.Duration(seconds) * time.Second, &httpError{resp.StatusCode, reasonOf(answer), seconds > 0}
}

// reasonOf returns the message in an error response of Caddy's admin API. A proxy before the API may answer with something
// else, which is shown as it is.
func reasonOf(answer []byte) string {
	var v struct{ Error string }
	if json.Unmarshal(answer, &v) == nil && v.Error != "" {
		return v.Error
	}
	return visible(strings.TrimSpace(string(answer)))
}

// retryable reports whether the same request may get a different response soon. An API that has not responded yet is not
// waited for, because its address may be wrong: it gets the request again only if the connection was interrupted, or if the
// response has a Retry-After.
func (p *publisher) retryable(err error) bool {
	if answer := new(httpError); errors.As(err, &answer) {
		// 502, 503 and 504: of a hub that is full or whose broker is away, or of a proxy whose server restarts. A 500 is a
		// fault that does not go away.
		return answer.status >= http.StatusBadGateway && answer.status <= http.StatusGatewayTimeout && (p.worked || answer.later)
	}
	if errors.Is(err, context.Canceled) {
		return false
	}
	if p.worked || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return true
	}
	failed := new(net.OpError)
	// Not dial: nobody listens at the address, which is the usual mistake.
	return errors.As(err, &failed) && failed.Op != "dial"
}
