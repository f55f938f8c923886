package integration

import (
	"bytes"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/coder/websocket"

	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
	"github.com/caddy-broadcast/caddy-broadcast/internal/eventstream"
	"github.com/caddy-broadcast/caddy-broadcast/internal/frame"
	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/protocol"
	"github.com/caddy-broadcast/caddy-broadcast/internal/route"
)

// shout is a protocol of lines: clients send "SAY something", and get what anybody publishes in capital letters.
type shout struct{}

func (shout) Name() string                   { return "shout.test" }
func (shout) MaxReceived(maxMessage int) int { return len("SAY ") + maxMessage }
func (shout) Format(int) hub.Format          { return shoutFormat{} }
func (shout) StreamFormat() hub.Format       { return shoutStream{} }

func (shout) Open(e *protocol.Endpoint, r *protocol.Request) protocol.Session {
	return &shoutSession{endpoint: e, request: r}
}

func (shout) OpenStream(r *protocol.Request) protocol.Greeter { return shoutOpening{} }

func (shout) Post(w http.ResponseWriter, e *protocol.Endpoint, r *protocol.Request, body []byte, _ func() bool) error {
	for line := range bytes.Lines(body) {
		if err := e.Hub.Publish(&hub.Message{Channel: r.Publish[0], Data: bytes.TrimSpace(line), Source: "post"}); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintln(w, "SAID")
	return err
}

type shoutSession struct {
	endpoint *protocol.Endpoint
	request  *protocol.Request
}

func (s *shoutSession) Greeting(*hub.Conn, *hub.ConnOptions, hub.Welcome) []byte {
	return frame.TextFrame("ON " + strings.Join(s.request.Channels, " "))
}

func (s *shoutSession) Receive(m frame.Message) error {
	data, err := m.Own()
	if err != nil {
		return err
	}
	data, ok := bytes.CutPrefix(data, []byte("SAY "))
	if !ok {
		return &frame.CloseError{Code: frame.UnsupportedData, Text: "only SAY"}
	}
	return s.endpoint.Hub.PublishWait(&hub.Message{Channel: s.request.Publish[0], Data: data, Source: "websocket"})
}

// shoutFormat is the format of WebSockets.
type shoutFormat struct{}

func (shoutFormat) Append(dst []byte, run []*hub.Message) []byte {
	for _, m := range run {
		dst = append(dst, frame.TextFrame(strings.ToUpper(string(m.Data)))...)
	}
	return dst
}
func (shoutFormat) Ping() []byte { return frame.PingFrame }
func (shoutFormat) Close(why hub.Reason, text string) []byte {
	return frame.CloseFrame(protocol.CloseCode(why), text)
}
func (shoutFormat) Gap([]string) []byte { return frame.TextFrame("MISSED") }

// shoutStream is the format of event streams.
type shoutStream struct{ eventstream.Format }

func (shoutStream) Append(dst []byte, run []*hub.Message) []byte {
	for _, m := range run {
		dst = fmt.Appendf(dst, "data: %s\n\n", bytes.ToUpper(m.Data))
	}
	return dst
}

type shoutOpening struct{}

func (shoutOpening) Greeting(*hub.Conn, *hub.ConnOptions, hub.Welcome) []byte {
	return []byte("data: READY\n\n")
}

// TestAnotherProtocol: a protocol is a type and an entry in the list. Its clients meet those of the others, by every
// transport.
func TestAnotherProtocol(t *testing.T) {
	before := route.Protocols
	defer func() { route.Protocols = before }()
	route.Protocols = append(before[:len(before):len(before)], shout{})
	s := caddytest.Start(t, `broadcast /ws room`)

	loud := s.Dial("/ws", &websocket.DialOptions{Subprotocols: []string{"other", "shout.test"}})
	plain := s.Dial("/ws", nil)
	_, events := s.Stream("http://" + s.Addr + "/ws?protocol=shout.test")
	s.Expect(loud, "ON room")
	if got := events(); got != "data: READY\n" {
		t.Errorf("the stream starts with %q", got)
	}
	said := func(text string) {
		t.Helper()
		s.Expect(plain, text)
		s.Expect(loud, strings.ToUpper(text))
		if got := events(); got != "data: "+strings.ToUpper(text)+"\n" {
			t.Errorf("the stream has %q", got)
		}
	}
	s.Send(loud, "SAY hello")
	said("hello")
	s.Send(plain, "hi")
	said("hi")
	if status, body := s.Do("POST", s.Addr+"/ws?protocol=shout.test", "one\ntwo\n"); status != http.StatusOK || body != "SAID\n" {
		t.Errorf("POST: %d %q", status, body)
	}
	said("one")
	said("two")
	s.Send(loud, "WHAT")
	s.ExpectClose(loud, websocket.StatusUnsupportedData)
}
