package caddytest

import (
	"bufio"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"syscall"

	"github.com/coder/websocket"
)

// UntilAnswered retries as a client does whose connection broke before it got a response. That happens during reloads: when a
// listener closes, of the old configuration or of a rejected one, the connections in its queue are lost. A queue is lost
// because Caddy opens a second socket for a port with SO_REUSEPORT (reusePort, listen_unix.go, v2.11.9), and the kernel
// resets the connections that wait at the socket which is closed.
func UntilAnswered(ask func() error) (err error) {
	// Ten, and not for ever: a server that never answers has to fail the test.
	for range 10 {
		if err = ask(); !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, io.EOF) {
			break
		}
	}
	return err
}

// TryDial opens a WebSocket, or returns the response that rejects the handshake.
func (s *Server) TryDial(path string, o *websocket.DialOptions) (c *websocket.Conn, resp *http.Response, err error) {
	s.T.Helper()
	err = UntilAnswered(func() (err error) {
		c, resp, err = websocket.Dial(s.T.Context(), "ws://"+s.Addr+path, o)
		return err
	})
	return c, resp, err
}

// Dial opens a WebSocket.
func (s *Server) Dial(path string, o *websocket.DialOptions) *websocket.Conn {
	s.T.Helper()
	c, _, err := s.TryDial(path, o)
	if err != nil {
		s.T.Fatal(err)
	}
	// The default is 32 KiB, and a frame of broadcast.v1 may have all messages of a batch.
	c.SetReadLimit(-1)
	s.T.Cleanup(func() { c.CloseNow() })
	return c
}

// Send sends a text message.
func (s *Server) Send(c *websocket.Conn, text string) {
	s.T.Helper()
	if err := c.Write(s.T.Context(), websocket.MessageText, []byte(text)); err != nil {
		s.T.Fatal(err)
	}
}

// Expect reads text messages, which must be these.
func (s *Server) Expect(c *websocket.Conn, texts ...string) {
	s.T.Helper()
	for _, want := range texts {
		_, got, err := c.Read(s.T.Context())
		if err != nil || string(got) != want {
			s.T.Fatalf("got %q and %v, not %q", got, err, want)
		}
	}
}

// ExpectClose reads until the connection is closed, which must be with this code.
func (s *Server) ExpectClose(c *websocket.Conn, want websocket.StatusCode) {
	s.T.Helper()
	for {
		_, _, err := c.Read(s.T.Context())
		if err == nil {
			continue
		}
		if got := websocket.CloseStatus(err); got != want {
			s.T.Fatalf("closed with %v, not %v", err, want)
		}
		return
	}
}

// Post sends a POST and returns the status and the body.
func (s *Server) Post(url, contentType, body string, header ...string) (int, string) {
	s.T.Helper()
	return s.Do(http.MethodPost, url, body, append(header, "Content-Type", contentType)...)
}

// Do sends a request, with header fields as pairs of name and value, and returns the status and the body.
func (s *Server) Do(method, url, body string, header ...string) (int, string) {
	s.T.Helper()
	r, err := http.NewRequest(method, "http://"+url, strings.NewReader(body))
	if err != nil {
		s.T.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	var resp *http.Response
	err = UntilAnswered(func() (err error) {
		// A retry has to send the body again, and the first try has read it.
		r.Body, _ = r.GetBody()
		resp, err = http.DefaultClient.Do(r)
		return err
	})
	if err != nil {
		s.T.Fatal(err)
	}
	defer resp.Body.Close()
	p, err := io.ReadAll(resp.Body)
	if err != nil {
		s.T.Fatal(err)
	}
	return resp.StatusCode, string(p)
}

// Stream opens an event stream and returns what it sends after its first block, one block at a time.
func (s *Server) Stream(url string, header ...string) (resp *http.Response, next func() string) {
	s.T.Helper()
	r, err := http.NewRequestWithContext(s.T.Context(), "GET", url, nil)
	if err != nil {
		s.T.Fatal(err)
	}
	r.Header.Set("Accept", "text/event-stream")
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	// Without compression, which would hold events back, and with a transport of its own, so that its connection ends
	// with the test.
	client := &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true, DisableCompression: true,
	}}
	s.T.Cleanup(client.CloseIdleConnections)
	err = UntilAnswered(func() (err error) {
		resp, err = client.Do(r)
		return err
	})
	if err != nil {
		s.T.Fatal(err)
	}
	s.T.Cleanup(func() { resp.Body.Close() })
	in := bufio.NewReader(resp.Body)
	return resp, func() (block string) {
		s.T.Helper()
		for {
			line, err := in.ReadString('\n')
			if err != nil {
				return err.Error()
			}
			if line == "\n" {
				return block
			}
			block += line
		}
	}
}

// Publish publishes through the admin API and returns the ID.
func (s *Server) Publish(query, body string) (id string) {
	s.T.Helper()
	status, answer := s.Post(s.Admin+"/broadcast/publish?"+query, "text/plain", body)
	var v struct{ ID string }
	if err := json.Unmarshal([]byte(answer), &v); status != 200 || err != nil {
		s.T.Fatal(status, answer)
	}
	return v.ID
}
