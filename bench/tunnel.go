//go:build linux

package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/quic-go/quic-go/http3"
	"golang.org/x/net/http2"
)

// tunnelsEach is how many WebSockets share a connection over HTTP/2 or HTTP/3. With it the 1,000 subscribers of scenario tls
// need 50 connections.
const tunnelsEach = 20

// closer is a function as an io.Closer, for fleet.conns.
type closer func()

func (c closer) Close() error { c(); return nil }

// dialTunnels connects the readers over HTTP/2 or HTTP/3, with as many on each connection as a page might have. Those of one
// connection are opened one after the other, because the tenth is only of interest when nine others are there.
func (f *fleet) dialTunnels(t target) error {
	slots := make(chan struct{}, 8)
	var wg sync.WaitGroup
	var mu sync.Mutex
	var failed error
	for at := 0; at < len(f.readers); at += tunnelsEach {
		slots <- struct{}{}
		group := f.readers[at:min(at+tunnelsEach, len(f.readers))]
		wg.Go(func() {
			defer func() { <-slots }()
			rt, end := transport(t.tunnel)
			for i, r := range group {
				begin := time.Now()
				body, cancel, err := tunnel(rt, t, r)
				mu.Lock()
				if err != nil {
					failed = err
					mu.Unlock()
					end()
					return
				}
				f.noteConnect(i, time.Since(begin))
				f.conns = append(f.conns, closer(cancel))
				mu.Unlock()
				f.reading.Go(func() { f.readEach(body, r) })
			}
			mu.Lock()
			f.conns = append(f.conns, closer(end))
			mu.Unlock()
		})
	}
	wg.Wait()
	return failed
}

// transport returns a client with one connection of its own, and what ends it. net/http's shared one would put all WebSockets
// of the bench on a single connection.
func transport(version int) (rt http.RoundTripper, end func()) {
	config := &tls.Config{InsecureSkipVerify: true, ServerName: "localhost"}
	if version == 3 {
		t := &http3.Transport{TLSClientConfig: config}
		return t, func() { t.Close() }
	}
	//lint:ignore SA1019 net/http's own client rejects the header :protocol
	t := &http2.Transport{TLSClientConfig: config}
	//lint:ignore SA1019 as above
	return t, t.CloseIdleConnections
}

// tunnel opens a WebSocket with an extended CONNECT (RFC 8441, RFC 9220). It returns what the server sends, and what ends the
// WebSocket.
func tunnel(rt http.RoundTripper, t target, r *reader) (io.Reader, context.CancelFunc, error) {
	ctx, cancel := context.WithCancel(context.Background())
	never, pipe := io.Pipe() // the client sends nothing
	req, err := http.NewRequestWithContext(ctx, http.MethodConnect, "https://"+t.addr+t.path(r.room), never)
	if err != nil {
		cancel()
		return nil, nil, err
	}
	req.ContentLength = -1
	req.Header.Set("Sec-WebSocket-Version", "13")
	if t.tunnel == 3 {
		req.Proto = "websocket"
	} else {
		req.Header.Set(":protocol", "websocket")
	}
	resp, err := rt.RoundTrip(req)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("the CONNECT request got the response %s", resp.Status)
	}
	if err != nil {
		cancel()
		return nil, nil, err
	}
	return resp.Body, func() {
		pipe.Close()
		resp.Body.Close()
		cancel()
	}, nil
}
