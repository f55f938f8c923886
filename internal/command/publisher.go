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

	firstDelay, longestDelay = 50 * time.Millisecond, 5 * time.Second
)

// publisher publishes through the admin API. It retries a request whose outcome is unknown, or that the hub has no room
// for. Requests carry keys, so that a message is published only once however often it is sent.
//
// It has an HTTP client of its own because caddycmd.AdminAPIRequest reports every status from 400 on as one error text.
type publisher struct {
	client *http.Client
	origin string
	worked bool // the API has responded before, so if it is gone it will probably return
}

// httpError is a response with a status of 400 or above.
type httpError struct {
	status int
	text   string
}

func (e *httpError) Error() string { return fmt.Sprintf("HTTP %d: %s", e.status, e.text) }

func newPublisher(a api) (*publisher, error) {
	addr, err := caddy.ParseNetworkAddress(a.address)
	if err != nil || addr.PortRangeSize() > 1 {
		return nil, fmt.Errorf("invalid admin address %s: %w", a.address, err)
	}
	dial, origin := addr.JoinHostPort(0), "http://"+addr.JoinHostPort(0)
	if addr.IsUnixNetwork() {
		dial, _, _ = strings.Cut(dial, "|") // without the socket's permissions
		origin = "http://127.0.0.1"
	}
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, addr.Network, dial)
	}}
	return &publisher{client: &http.Client{Transport: transport}, origin: origin}, nil
}

// publish sends a request, with retries, and returns the body of the response.
func (p *publisher) publish(ctx context.Context, query url.Values, header http.Header, body []byte) ([]byte, error) {
	began, delay := time.Now(), firstDelay
	for {
		answer, wait, err := p.try(ctx, query, header, body)
		if err == nil {
			p.worked = true
			return answer, nil
		}
		if !p.retryable(err) || time.Since(began)+wait > retryTimeout {
			return nil, err
		}
		wait = max(wait, time.Duration(rand.Int64N(int64(delay))))
		delay = min(2*delay, longestDelay)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil, err
		}
	}
}

// try sends the request once. Wait is the response's Retry-After.
func (p *publisher) try(ctx context.Context, query url.Values, header http.Header, body []byte) (answer []byte, wait time.Duration, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, p.origin+"/broadcast/publish?"+query.Encode(), bytes.NewReader(body))
	if err != nil {
		return nil, 0, err
	}
	r.Header = header.Clone()
	r.Header.Set("Origin", p.origin) // the admin endpoint checks it if enforce_origin is on
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
	seconds, _ := strconv.Atoi(resp.Header.Get("Retry-After"))
	return nil, time.Duration(seconds) * time.Second, &httpError{resp.StatusCode, reasonOf(answer)}
}

// reasonOf returns the message in an error response of Caddy's admin API.
func reasonOf(answer []byte) string {
	var v struct{ Error string }
	if json.Unmarshal(answer, &v) == nil && v.Error != "" {
		return v.Error
	}
	return visible(strings.TrimSpace(string(answer)))
}

// retryable reports whether the same request may get a different response soon. An API that has never been reached is
// not waited for: its address is probably wrong.
func (p *publisher) retryable(err error) bool {
	if answer := new(httpError); errors.As(err, &answer) {
		return answer.status >= http.StatusBadGateway && answer.status <= http.StatusGatewayTimeout
	}
	if errors.Is(err, context.Canceled) {
		return false
	}
	dialing := new(net.OpError)
	return p.worked || !errors.As(err, &dialing) || dialing.Op != "dial"
}
