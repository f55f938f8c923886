//go:build linux

package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"

	"github.com/coder/websocket"
	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
	"golang.org/x/net/http2"
)

// kinds are the kinds of clients. A visit ends with the client's life or its connection. It returns an error if the client was
// rejected.
var kinds = [...]struct {
	name   string
	sticks bool // some of them get stuck
	visit  func(v *visitor) error
}{
	{"raw", true, func(v *visitor) error { return v.socket("ws://"+plainAddr+v.path(), "", "hello") }},
	{"broadcast.v1", true, func(v *visitor) error {
		return v.socket("ws://"+plainAddr+v.path(), "broadcast.v1",
			fmt.Sprintf(`[{"join":{"channel":"%d"},"ref":1},{"publish":{"data":"hello"}}]`, rand.IntN(rooms)))
	}},
	{"event stream", true, (*visitor).eventStream},
	{"polling", false, (*visitor).polling},
	{"Socket.IO", true, func(v *visitor) error {
		return v.socket(fmt.Sprintf("ws://%s/socket.io/?EIO=4&transport=websocket&room=%d", plainAddr, v.room), "", `42["say","hello"]`)
	}},
	{"TLS", true, func(v *visitor) error { return v.socket("wss://"+secureAddr+v.path(), "", "hello") }},
	{"HTTP/2", true, (*visitor).tunnels},
	{"route that comes and goes", true, func(v *visitor) error {
		return v.socket(fmt.Sprintf("ws://%s/extra/%d", plainAddr, v.room), "", "hello")
	}},
}

// path returns where the visitor subscribes. Users are few, so that some have several connections.
func (v *visitor) path() string { return fmt.Sprintf("/ws/%d?user=u%d", v.room, rand.IntN(100)) }

// socket is a WebSocket that sends a message and reads, and answers the pings of both WebSockets and Engine.IO.
func (v *visitor) socket(url, protocol, message string) error {
	o := &websocket.DialOptions{HTTPClient: v.http}
	if protocol != "" {
		o.Subprotocols = []string{protocol}
	}
	c, _, err := websocket.Dial(v.lifetime, url, o)
	if err != nil {
		return v.unlessOver(err)
	}
	defer c.CloseNow()
	if strings.Contains(url, "EIO=4") {
		if err := c.Write(v.lifetime, websocket.MessageText, []byte("40")); err != nil {
			return nil
		}
	}
	if v.stuck {
		<-v.lifetime.Done()
		return nil
	}
	c.SetReadLimit(-1)
	// Half of them say goodbye. The others just end, which is what CloseNow and leave do.
	defer context.AfterFunc(v.lifetime, func() {
		if rand.IntN(2) == 0 {
			c.Close(websocket.StatusNormalClosure, "")
		}
		c.CloseNow()
	})()
	for sent := false; ; {
		_, data, err := c.Read(context.Background())
		if err != nil {
			return nil
		}
		v.received(data)
		reply := ""
		switch {
		case string(data) == "2" && protocol == "":
			reply = "3"
		case !sent:
			reply, sent = message, true
		}
		if reply != "" && c.Write(v.lifetime, websocket.MessageText, []byte(reply)) != nil {
			return nil
		}
	}
}

// unlessOver returns an error, or nil if the visitor's life is over, which then caused it.
func (v *visitor) unlessOver(err error) error {
	if v.lifetime.Err() != nil {
		return nil
	}
	return err
}

// eventStream reads an event stream.
func (v *visitor) eventStream() error {
	req, err := http.NewRequestWithContext(v.lifetime, http.MethodGet, "http://"+plainAddr+v.path(), nil)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", "text/event-stream")
	resp, err := v.http.Do(req)
	if err != nil {
		return v.unlessOver(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("an event stream got %s", resp.Status)
	}
	v.readAll(resp.Body)
	return nil
}

// polling is a client of Socket.IO by long polling.
func (v *visitor) polling() error {
	url := fmt.Sprintf("http://%s/socket.io/?EIO=4&transport=polling&room=%d", plainAddr, v.room)
	answer, err := v.ask(http.MethodGet, url, "")
	if err != nil {
		return v.unlessOver(err)
	}
	_, rest, _ := strings.Cut(answer, `"sid":"`)
	sid, _, ok := strings.Cut(rest, `"`)
	if !ok {
		return fmt.Errorf("no session: %.100q", answer)
	}
	url += "&sid=" + sid
	if _, err := v.ask(http.MethodPost, url, "40"); err != nil {
		return v.unlessOver(err)
	}
	for {
		answer, err := v.ask(http.MethodGet, url, "")
		if err != nil {
			return nil
		}
		v.received([]byte(answer))
		if answer == "2" {
			if _, err := v.ask(http.MethodPost, url, "3"); err != nil {
				return nil
			}
		}
	}
}

// tunnels opens three WebSockets on one connection over HTTP/2. If the visitor gets stuck, one of them does, and its
// neighbours go on.
func (v *visitor) tunnels() error {
	//lint:ignore SA1019 net/http's own client rejects the header :protocol
	t := &http2.Transport{TLSClientConfig: insecure.Clone()}
	//lint:ignore SA1019 as above
	defer t.CloseIdleConnections()
	ended := make(chan error, 3)
	for i := range cap(ended) {
		go func() { ended <- v.tunnel(t, v.stuck && i == 0) }()
	}
	var err error
	for range cap(ended) {
		if e := <-ended; e != nil {
			err = e
		}
	}
	return v.unlessOver(err)
}

// tunnel is one WebSocket over HTTP/2 (RFC 8441).
func (v *visitor) tunnel(rt http.RoundTripper, stuck bool) error {
	out, send := io.Pipe()
	defer send.Close()
	req, err := http.NewRequestWithContext(v.lifetime, http.MethodConnect, "https://"+secureAddr+v.path(), out)
	if err != nil {
		return err
	}
	req.ContentLength = -1
	req.Header.Set("Sec-WebSocket-Version", "13")
	req.Header.Set(":protocol", "websocket")
	resp, err := rt.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("a CONNECT got %s", resp.Status)
	}
	if stuck {
		<-v.lifetime.Done()
		return nil
	}
	both := struct {
		io.Reader
		io.Writer
	}{resp.Body, send}
	for {
		data, op, err := wsutil.ReadServerData(both) // answers pings
		if err != nil {
			return nil
		}
		if op == ws.OpText {
			v.received(data)
		}
	}
}
