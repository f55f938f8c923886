// Package adminclient is a client of the admin API of a running Caddy.
//
// It has an HTTP client of its own because caddycmd.AdminAPIRequest makes a new connection for each request, and turns every
// status from 400 on into one text (commandfuncs.go of Caddy 2.11.9). Commands have to tell a user what to do about the
// status, and to retry some.
package adminclient

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/caddyserver/caddy/v2"
)

// Client sends requests to the admin API at one address.
type Client struct {
	address string
	client  *http.Client
	origin  string // of the URL. DialContext does not use it
	local   bool   // the API is on a Unix socket, and rejects the header Origin
}

// New returns a client for an address in Caddy's form, which may be a Unix socket. It keeps its connections for the next
// request, and sends nothing yet.
func New(address string) (*Client, error) {
	addr, err := caddy.ParseNetworkAddress(address)
	// One address, as caddycmd wants it too.
	if err != nil || addr.PortRangeSize() > 1 {
		return nil, fmt.Errorf("invalid admin address %s: %w", address, err)
	}
	dial, origin := addr.JoinHostPort(0), "http://"+addr.JoinHostPort(0)
	local := addr.IsUnixNetwork() || addr.IsFdNetwork()
	if local {
		dial, _, _ = strings.Cut(dial, "|") // without the socket's permissions
		// The host of a URL may not be empty or invalid (golang/go#60374), though it is not used. caddycmd sends the
		// same.
		origin = "http://127.0.0.1"
	}
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, addr.Network, dial)
	}}
	return &Client{address, &http.Client{Transport: transport}, origin, local}, nil
}

// Address returns the address of the API.
func (c *Client) Address() string { return c.address }

// Error is a response with a status of 400 or above.
type Error struct {
	Status     int
	Text       string        // the reason, without the JSON around it
	RetryAfter time.Duration // 0 if the response has none
	plain      bool          // it is no error of Caddy's admin API: a proxy may have sent it
}

func (e *Error) Error() string {
	if e.plain || e.Text == "" {
		return strings.TrimSpace(fmt.Sprintf("the admin API responded with %d %s %s", e.Status, http.StatusText(e.Status), e.Text))
	}
	return e.Text
}

// Do sends a request. A status of 400 or above is an *Error, so a response is always a good one. There is no time limit
// besides that of the context, because some responses are streams.
func (c *Client) Do(ctx context.Context, method, path string, header http.Header, body io.Reader) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, method, c.origin+path, body)
	if err != nil {
		return nil, err
	}
	if header != nil {
		// A copy, because the caller may send the same header again.
		r.Header = header.Clone()
	}
	if !c.local {
		r.Header.Set("Origin", c.origin) // Caddy checks it if enforce_origin is on
	}
	resp, err := c.client.Do(r)
	if err != nil || resp.StatusCode < 400 {
		return resp, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return nil, fmt.Errorf("reading the response: %w", err)
	}
	// The hub sends Retry-After as seconds. A date, which RFC 9110, section 10.2.3, allows too, is taken for none.
	seconds, _ := strconv.Atoi(resp.Header.Get("Retry-After"))
	failed := &Error{Status: resp.StatusCode, RetryAfter: time.Duration(seconds) * time.Second}
	failed.Text, failed.plain = reason(text)
	return nil, failed
}

// reason returns the message in an error response of Caddy's admin API. Anything else is returned as it is, and is plain.
func reason(response []byte) (text string, plain bool) {
	var v struct{ Error string }
	if json.Unmarshal(response, &v) == nil && v.Error != "" {
		return v.Error, false
	}
	// A terminal would obey control characters.
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, strings.TrimSpace(string(response))), true
}

// Get returns the body of a response.
func (c *Client) Get(ctx context.Context, path string) ([]byte, error) {
	resp, err := c.Do(ctx, http.MethodGet, path, nil, nil)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return io.ReadAll(resp.Body)
}

// Advice returns what to do about an error of Do, or "" if the error says it all.
func Advice(err error) string {
	if failed := new(Error); errors.As(err, &failed) {
		switch {
		case failed.Status == http.StatusNotFound && failed.plain:
			return "this Caddy has no module broadcast: build it with xcaddy build --with github.com/caddy-broadcast/caddy-broadcast"
		case failed.Status == http.StatusForbidden && strings.Contains(failed.Text, "not allowed"):
			return "give the address as the endpoint's own configuration has it, for example --address localhost:2019, or name this one in its option origins"
		}
		return ""
	}
	failed := new(net.OpError)
	switch {
	case !errors.As(err, &failed) || failed.Op != "dial":
		return ""
	case errors.Is(err, fs.ErrPermission):
		return "run the command as a user that may use the socket, for example with sudo -u caddy"
	}
	return "start Caddy, or say where its admin API is: --address localhost:2019, or --config with the file that Caddy runs with"
}

// Explain returns an error of Do for people: without the address that net/http repeats, and with what to do about it.
func (c *Client) Explain(err error) error {
	if err == nil {
		return nil
	}
	advice := Advice(err)
	if failed := new(net.OpError); errors.As(err, &failed) && failed.Op == "dial" {
		err = fmt.Errorf("no admin API of Caddy at %s: %w", c.address, failed.Err)
	}
	if advice == "" {
		return err
	}
	return fmt.Errorf("%w; %s", err, advice)
}
