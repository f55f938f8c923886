package admin

import (
	"bytes"
	"cmp"
	"fmt"
	"net/http"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/publish"
)

// parseLines parses messages, one per line, and returns them with their line numbers. Blank lines are skipped. If a line is
// wrong it returns no messages, and an error that names the line.
func parseLines(body []byte) (ms []*hub.Message, lines []int, err error) {
	// The hub rejects two messages with one key too, but its ErrKeyReused does not say which they are. Here the line
	// is known.
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
			} else if before.Event != m.Event || before.Conflate != m.Conflate || before.Kind != m.Kind || !bytes.Equal(before.Data, m.Data) {
				return nil, nil, publish.Reject(http.StatusUnprocessableEntity, "line %d: %w; nothing was published", n, hub.ErrKeyReused)
			}
		}
		// Only lines that are messages count, so this comes after blank lines are skipped.
		if len(ms) == maxLines {
			return nil, nil, publish.Reject(http.StatusRequestEntityTooLarge, "line %d: there are more than %d messages; nothing was published", n, maxLines)
		}
		ms, lines = append(ms, m), append(lines, n)
	}
	if len(ms) == 0 {
		return nil, nil, publish.Reject(http.StatusBadRequest, "the body has no lines")
	}
	return ms, lines, nil
}

func badLine(n int, err error) error {
	return publish.Reject(http.StatusBadRequest, "line %d: %w; nothing was published", n, err)
}

func parseLine(line []byte) (*hub.Message, error) {
	o, err := publish.Decode(line)
	if err != nil {
		return nil, err
	}
	m, err := o.Message(cmp.Or(string(o.Channel), defaultChannel))
	if err != nil {
		return nil, err
	}
	if len(m.Data) > maxMessage {
		return nil, fmt.Errorf("the data has %d bytes, more than %d", len(m.Data), maxMessage)
	}
	return m, nil
}
