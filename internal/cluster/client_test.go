package cluster

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/coder/websocket"
)

// Kinds of clients.
const (
	v1     = "broadcast.v1"
	stream = "event stream" // of one channel
	raw    = "raw"          // a WebSocket, of one channel
)

// event is what a client gets: a message, or one of the others.
type event struct {
	ID, Channel string
	Data        json.RawMessage
	Hello       *struct {
		ID      string
		Resumed bool
	}
	Gap *struct{ Channels []string }
	Ack *struct {
		Ref int
		ID  string
	}
	Error *struct {
		Ref  int
		Code string
	}
}

// client is a connection.
type client struct {
	kind     string
	channels []string
	lastID   string // what to resume from
	ws       *websocket.Conn
	body     io.ReadCloser
	lines    *bufio.Reader
	pending  []event
}

// refused is the status of a connection that a node did not accept.
type refused int

func (r refused) Error() string { return "refused with " + strconv.Itoa(int(r)) }

// connect connects to a node. lastID may be empty.
func connect(ctx context.Context, addr, kind, lastID string, channels ...string) (*client, error) {
	c := &client{kind: kind, channels: channels, lastID: lastID}
	query := url.Values{}
	if lastID != "" {
		query.Set("last_id", lastID)
	}
	for _, name := range channels[1:] {
		query.Add("join", name)
	}
	address := "//" + addr + "/live/" + channels[0] + "?" + query.Encode()
	if kind == stream {
		return c, c.openStream(ctx, "http:"+address)
	}
	options := &websocket.DialOptions{}
	if kind == v1 {
		options.Subprotocols = []string{v1}
	}
	ws, resp, err := websocket.Dial(ctx, "ws:"+address, options)
	if err != nil {
		if resp != nil {
			return nil, fmt.Errorf("%w: %w", refused(resp.StatusCode), err)
		}
		return nil, err
	}
	ws.SetReadLimit(-1)
	c.ws = ws
	return c, nil
}

// streams has a connection for each event stream.
var streams = &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DisableCompression: true}}

func (c *client) openStream(ctx context.Context, address string) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return err
	}
	r.Header.Set("Accept", "text/event-stream")
	resp, err := streams.Do(r)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		resp.Body.Close()
		return refused(resp.StatusCode)
	}
	c.body, c.lines = resp.Body, bufio.NewReader(resp.Body)
	return nil
}

func (c *client) close() {
	if c.ws != nil {
		c.ws.CloseNow()
	}
	if c.body != nil {
		c.body.Close()
	}
}

// next returns what comes next, and keeps the position to resume from.
func (c *client) next(ctx context.Context) (e event, err error) {
	for len(c.pending) == 0 {
		switch c.kind {
		case stream:
			err = c.readBlock()
		case raw:
			var data []byte
			_, data, err = c.ws.Read(ctx)
			c.pending = []event{{Channel: c.channels[0], Data: data}}
		default:
			var frame []byte
			if _, frame, err = c.ws.Read(ctx); err == nil {
				err = json.Unmarshal(frame, &c.pending)
			}
		}
		if err != nil {
			c.pending = nil
			return event{}, err
		}
	}
	e, c.pending = c.pending[0], c.pending[1:]
	switch {
	case e.ID != "":
		c.lastID = e.ID
	case e.Hello != nil && e.Hello.ID != "":
		c.lastID = e.Hello.ID
	}
	return e, nil
}

// readBlock reads one block of an event stream: a message, a gap, a position, or nothing of interest.
func (c *client) readBlock() error {
	var e event
	name, id := "", ""
	for {
		line, err := c.lines.ReadBytes('\n')
		if err != nil {
			return err
		}
		field, value, _ := bytes.Cut(bytes.TrimSuffix(line, []byte("\n")), []byte(": "))
		switch string(field) {
		case "id":
			id = string(value)
		case "event":
			name = string(value)
		case "data":
			e.Data = value
		case "":
			if e.Data == nil && id == "" {
				return nil
			}
			switch {
			case name == "gap":
				if err := json.Unmarshal(e.Data, &e.Gap); err != nil {
					return err
				}
				e.Data = nil
			case e.Data == nil:
				e.Hello = &struct {
					ID      string
					Resumed bool
				}{ID: id}
			default:
				e.ID, e.Channel = id, c.channels[0]
			}
			if id != "" {
				c.lastID = id
			}
			c.pending = append(c.pending, e)
			return nil
		}
	}
}

// posts sends POSTs. A node that does not answer does not keep a test for ever.
var posts = &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 64}}

// answer is what a POST got.
type answer struct {
	status     int
	id         string
	body       string
	retryAfter string
}

// post publishes by POST.
func post(ctx context.Context, addr, channel, data, key string) (a answer, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+addr+"/live/"+channel, strings.NewReader(data))
	if err != nil {
		return a, err
	}
	r.Header.Set("Content-Type", "text/plain")
	if key != "" {
		r.Header.Set("Idempotency-Key", key)
	}
	resp, err := posts.Do(r)
	if err != nil {
		return a, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return a, err
	}
	a = answer{status: resp.StatusCode, body: string(body), retryAfter: resp.Header.Get("Retry-After")}
	if a.status == http.StatusOK {
		var v struct{ ID string }
		if err = json.Unmarshal(body, &v); err == nil && v.ID == "" {
			err = errors.New("no id in " + a.body)
		}
		a.id = v.ID
	}
	return a, err
}

// feed is a WebSocket of broadcast.v1 that publishes on one channel.
type feed struct {
	*client
	ref int
}

func openFeed(ctx context.Context, addr, channel string) (*feed, error) {
	ws, _, err := websocket.Dial(ctx, "ws://"+addr+"/feed/"+channel, &websocket.DialOptions{Subprotocols: []string{v1}})
	if err != nil {
		return nil, err
	}
	return &feed{client: &client{kind: v1, channels: []string{channel}, ws: ws}}, nil
}

// publish publishes, and returns the ID, or the code of the error.
func (f *feed) publish(ctx context.Context, data, key string) (id, code string, err error) {
	f.ref++
	text, _ := json.Marshal(data)
	request := fmt.Sprintf(`{"publish":{"data":%s,"key":%q},"ref":%d}`, text, key, f.ref)
	if err := f.ws.Write(ctx, websocket.MessageText, []byte(request)); err != nil {
		return "", "", err
	}
	for {
		e, err := f.next(ctx)
		switch {
		case err != nil:
			return "", "", err
		case e.Ack != nil && e.Ack.Ref == f.ref:
			return e.Ack.ID, "", nil
		case e.Error != nil && e.Error.Ref == f.ref:
			return "", e.Error.Code, nil
		}
	}
}

// text returns the data of a message that was published as text.
func (c *client) text(e event) string {
	if c.kind != v1 {
		return string(e.Data)
	}
	var text string
	if json.Unmarshal(e.Data, &text) != nil {
		return string(e.Data)
	}
	return text
}

// seqOf returns the position of an ID.
func seqOf(id string) uint64 {
	_, digits, _ := strings.Cut(id, "-")
	seq, _ := strconv.ParseUint(digits, 10, 64)
	return seq
}

func sorted(names []string) []string {
	names = slices.Clone(names)
	slices.Sort(names)
	return names
}
