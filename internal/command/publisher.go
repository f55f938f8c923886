package command

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/internal/adminclient"
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
type publisher struct {
	api
	worked bool // the API has responded before, so if it is gone it will probably return
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
			return nil, p.Explain(err)
		}
		// At random between 0 and the delay, so that publishers that failed together do not retry together.
		wait = max(wait, time.Duration(rand.Int64N(int64(delay))))
		delay = min(2*delay, longestDelay)
		select {
		case <-time.After(wait):
		// It does not end with Caddy, which runs commands with the background's context (Main in cmd/main.go of 2.11.9):
		// Ctrl-C ends the process. The last error says more than that of the context.
		case <-ctx.Done():
			return nil, p.Explain(err)
		}
	}
}

// try sends the request once. Wait is the response's Retry-After. A response that breaks off is an error like none at all: the
// message may have been published, and the key makes it safe to ask again.
func (p *publisher) try(ctx context.Context, query url.Values, header http.Header, body []byte) (answer []byte, wait time.Duration, err error) {
	resp, err := p.Do(ctx, http.MethodPost, "/broadcast/publish?"+query.Encode(), header, bytes.NewReader(body))
	if failed := new(adminclient.Error); errors.As(err, &failed) {
		return nil, failed.RetryAfter, err
	}
	if err != nil {
		return nil, 0, err
	}
	defer resp.Body.Close()
	answer, err = io.ReadAll(resp.Body)
	if err != nil {
		return nil, 0, fmt.Errorf("reading the response: %w", err)
	}
	return answer, 0, nil
}

// retryable reports whether the same request may get a different response soon. An API that has not responded yet is not
// waited for, because its address may be wrong: it gets the request again only if the connection was interrupted, or if the
// response has a Retry-After.
func (p *publisher) retryable(err error) bool {
	if answer := new(adminclient.Error); errors.As(err, &answer) {
		// 502, 503 and 504: of a hub that is full or whose broker is away, or of a proxy whose server restarts. A 500 is a
		// fault that does not go away.
		return answer.Status >= http.StatusBadGateway && answer.Status <= http.StatusGatewayTimeout && (p.worked || answer.RetryAfter > 0)
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
