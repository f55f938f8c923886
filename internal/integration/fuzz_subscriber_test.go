package integration

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/coder/websocket"
	"github.com/tmaxmax/go-sse"

	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
)

// said is what a subscriber has been told of a message. What its form does not tell is left out.
type said struct {
	channel, event string
	kind           string // "text", "binary", "JSON", or where the form does not tell, ""
	data           string
}

// subscriber is a client that stays for the whole run.
type subscriber struct {
	name string
	// next returns what the client is told next, in the order in which it is. It decodes with parsers that are not ours.
	next func() ([]said, error)
	// sees is what the client is told of a message.
	sees func(m said) said
	all  bool // it gets the messages of all channels; the last one does
}

const (
	fuzzChannel  = "c"
	fuzzPatience = 20 * time.Second
)

// until returns what the subscriber is told before a sentinel.
func (s *subscriber) until(t *testing.T, sentinel string) (got []said) {
	t.Helper()
	for {
		some, err := s.next()
		if err != nil {
			t.Fatalf("%s: %v", s.name, err)
		}
		for i, m := range some {
			if m.data == sentinel {
				if i+1 < len(some) {
					t.Fatalf("%s: more behind the sentinel: %q", s.name, some)
				}
				return got
			}
			got = append(got, m)
		}
	}
}

// subscribers connects a client of each kind.
func subscribers(f *testing.F, s *caddytest.Server) []*subscriber {
	v1 := []string{"broadcast.v1"}
	deflated := func(protocols []string) *websocket.DialOptions {
		return &websocket.DialOptions{Subprotocols: protocols, CompressionMode: websocket.CompressionNoContextTakeover}
	}
	asIs := func(m said) said { return m }
	raw := func(m said) said {
		m.channel, m.event = "", ""
		if m.kind == "JSON" {
			m.kind = "text"
		}
		return m
	}
	stream := func(m said) said {
		m.channel = ""
		if m.kind == "binary" {
			m.data = base64.StdEncoding.EncodeToString([]byte(m.data))
		} else {
			m.data = strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(m.data)
		}
		m.kind = ""
		return m
	}
	return []*subscriber{
		{"raw", readRaw(s.Dial("/ws", nil)), raw, false},
		{"raw, deflated", readRaw(s.Dial("/ws", deflated(nil))), raw, false},
		{"broadcast.v1", readV1(s.Dial("/ws", &websocket.DialOptions{Subprotocols: v1})), asIs, false},
		{"broadcast.v1, deflated", readV1(s.Dial("/ws", deflated(v1))), asIs, false},
		{"event stream", readStream(f, s, s.Addr+"/ws"), stream, false},
		{"event stream of broadcast.v1", readV1Stream(f, s, s.Addr+"/ws?protocol=broadcast.v1"), asIs, false},
		{"admin stream", readV1Stream(f, s, s.Admin+"/broadcast/stream"), asIs, true},
	}
}

func read(c *websocket.Conn) (kind websocket.MessageType, data []byte, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), fuzzPatience)
	defer cancel()
	kind, data, err = c.Read(ctx)
	if err == nil && kind == websocket.MessageText && !utf8.Valid(data) {
		err = fmt.Errorf("text that is not UTF-8: %q", data)
	}
	return kind, data, err
}

func readRaw(c *websocket.Conn) func() ([]said, error) {
	return func() ([]said, error) {
		kind, data, err := read(c)
		m := said{kind: "text", data: string(data)}
		if kind == websocket.MessageBinary {
			m.kind = "binary"
		}
		return []said{m}, err
	}
}

func readV1(c *websocket.Conn) func() ([]said, error) {
	return func() ([]said, error) {
		_, data, err := read(c)
		if err != nil {
			return nil, err
		}
		return parseV1(data)
	}
}

// parseV1 takes a frame of broadcast.v1 apart.
func parseV1(frame []byte) (ms []said, err error) {
	var anything any
	if err := json.Unmarshal(frame, &anything); err != nil { // numbers and depth, too
		return nil, fmt.Errorf("%q: %w", frame, err)
	}
	var list []struct {
		Hello                        any
		ID, Channel, Event, Encoding string
		Data                         json.RawMessage
	}
	d := json.NewDecoder(strings.NewReader(string(frame)))
	d.DisallowUnknownFields()
	if err := d.Decode(&list); err != nil {
		return nil, fmt.Errorf("%q: %w", frame, err)
	}
	for _, o := range list {
		if o.Hello != nil {
			continue
		}
		m := said{channel: o.Channel, event: o.Event, kind: "JSON", data: string(o.Data)}
		var text string
		if json.Unmarshal(o.Data, &text) == nil && o.Data[0] == '"' {
			m.kind, m.data = "text", text
			if o.Encoding == "base64" {
				p, err := base64.StdEncoding.DecodeString(text)
				if err != nil {
					return nil, err
				}
				m.kind, m.data = "binary", string(p)
			}
		}
		if o.ID == "" {
			return nil, fmt.Errorf("%q: no ID", frame)
		}
		ms = append(ms, m)
	}
	return ms, nil
}

// events reads an event stream.
func events(f *testing.F, s *caddytest.Server, url string) func() (sse.Event, error) {
	resp, _ := s.Stream("http://" + url)
	if resp.StatusCode != http.StatusOK {
		f.Fatal(resp.Status)
	}
	next, stop := iter.Pull2(sse.Read(resp.Body, &sse.ReadConfig{MaxEventSize: 16 << 20}))
	f.Cleanup(stop)
	f.Cleanup(func() { resp.Body.Close() }) // before stop
	return func() (sse.Event, error) {
		timer := time.AfterFunc(fuzzPatience, func() { resp.Body.Close() })
		defer timer.Stop()
		e, err, ok := next()
		if !ok {
			err = errors.New("the stream has ended")
		}
		if err == nil && !utf8.ValidString(e.Data+e.Type) {
			err = fmt.Errorf("an event that is not UTF-8: %q", e)
		}
		return e, err
	}
}

func readStream(f *testing.F, s *caddytest.Server, url string) func() ([]said, error) {
	next := events(f, s, url)
	return func() ([]said, error) {
		e, err := next()
		if e.Data == "" && e.Type == "" && strings.HasSuffix(e.LastEventID, "-0") {
			return nil, err // the position, which to a browser is no event
		}
		return []said{{event: e.Type, data: e.Data}}, err
	}
}

func readV1Stream(f *testing.F, s *caddytest.Server, url string) func() ([]said, error) {
	next := events(f, s, url)
	return func() ([]said, error) {
		e, err := next()
		if err != nil || e.Data == "" {
			return nil, err
		}
		return parseV1([]byte(e.Data))
	}
}
