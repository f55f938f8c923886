package admin

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/post"
)

// parseLines reads messages, one a line, and returns the number of each one's line. Blank lines are passed over. On an
// error, which names the line, there are no messages.
func parseLines(body []byte) (ms []*hub.Message, lines []int, err error) {
	keys := make(map[[2]string]*hub.Message)
	n := 0
	for line := range bytes.Lines(body) {
		n++
		line = bytes.TrimSpace(line)
		if len(line) == 0 {
			continue
		}
		m, err := parseLine(line)
		if err != nil {
			return nil, nil, badLine(n, err)
		}
		if m.Key != "" {
			k := [2]string{m.Channel, m.Key}
			if before, ok := keys[k]; !ok {
				keys[k] = m
			} else if before.Event != m.Event || before.Kind != m.Kind || !bytes.Equal(before.Data, m.Data) {
				return nil, nil, &post.Error{
					Status: http.StatusUnprocessableEntity,
					Err:    fmt.Errorf("line %d: %w; nothing was published", n, hub.ErrKeyReused),
				}
			}
		}
		if len(ms) == maxLines {
			return nil, nil, &post.Error{
				Status: http.StatusRequestEntityTooLarge,
				Err:    fmt.Errorf("line %d: there are more than %d messages; nothing was published", n, maxLines),
			}
		}
		ms, lines = append(ms, m), append(lines, n)
	}
	if len(ms) == 0 {
		return nil, nil, bad("the body has no lines")
	}
	return ms, lines, nil
}

func badLine(n int, err error) error { return bad("line %d: %w; nothing was published", n, err) }

func bad(format string, args ...any) error {
	return &post.Error{Status: http.StatusBadRequest, Err: fmt.Errorf(format, args...)}
}

func parseLine(line []byte) (*hub.Message, error) {
	var v struct {
		Channel  post.Channel    `json:"channel"`
		Event    string          `json:"event"`
		Data     json.RawMessage `json:"data"`
		Encoding string          `json:"encoding"`
		Key      string          `json:"key"`
	}
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	if err := d.Decode(&v); err != nil {
		return nil, err
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("has more than one JSON value")
	}
	if err := hub.CheckUnicode(line); err != nil {
		return nil, err
	}

	m := &hub.Message{Channel: cmp.Or(string(v.Channel), defaultChannel), Event: v.Event, Key: v.Key}
	if err := post.Data(m, v.Data, v.Encoding); err != nil {
		return nil, err
	}
	if len(m.Data) > maxMessage {
		return nil, fmt.Errorf("the data has %d bytes, more than %d", len(m.Data), maxMessage)
	}
	return m, nil
}
