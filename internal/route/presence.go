package route

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/presence"
	"github.com/caddy-broadcast/caddy-broadcast/internal/protocol"
)

// Presence has the clients of a route know of each other.
type Presence struct {
	// How long a client that has disconnected still counts as present. If it returns within that time, as after a page reload
	// or on a bad network, it never left. At zero every disconnect is reported. Default: `5s`. Maximum: `5m`.
	Grace *caddy.Duration `json:"grace,omitempty"`
}

const (
	defaultGrace = 5 * time.Second
	maxGrace     = 5 * time.Minute

	// maxMember and memberDepth bound what a client can have every other one be sent.
	maxMember   = 512
	memberDepth = 16
)

// grace returns the grace period.
func (p *Presence) grace() time.Duration {
	if p.Grace == nil {
		return defaultGrace
	}
	return time.Duration(*p.Grace)
}

func (c *Config) validatePresence() error {
	switch {
	case c.Presence == nil && c.Member != "":
		return errors.New("member has no effect without presence")
	case c.Presence == nil:
		return nil
	case !c.Subscribe:
		return errors.New("subscribe is off, so there is nobody who could be present")
	case c.Presence.grace() < 0 || c.Presence.grace() > maxGrace:
		return fmt.Errorf("presence's grace is %s, must be 0 to %s", c.Presence.grace(), maxGrace)
	case c.Member != "" && c.User == "":
		return errors.New("member needs user: clients without a user are only counted")
	case c.MaxBacklog < presence.MinBacklog:
		return fmt.Errorf("max_backlog is %d bytes, must be at least %d with presence, so that a list of members fits", c.MaxBacklog, presence.MinBacklog)
	}
	return c.validateMember()
}

// validateMember checks JSON as it is with some value for each placeholder: with a mistake in it, every request would get a 400.
func (c *Config) validateMember() error {
	if !isJSONText(c.Member) {
		return nil
	}
	text, err := caddy.NewEmptyReplacer().ReplaceFunc(escapeJSON(c.Member), func(string, any) (any, error) { return "0", nil })
	if err == nil {
		err = hub.CheckJSON([]byte(text), memberDepth)
	}
	if err != nil {
		return fmt.Errorf("member %s %w", c.Member, err)
	}
	return nil
}

// memberOf expands the option member for a client. If the option is written as JSON, the values of placeholders become parts of
// its strings, whatever characters they have. Otherwise its value is a text, unless that is a JSON object or array, as an
// authentication server may send in a header.
func (route *Route) memberOf(repl *caddy.Replacer) (string, error) {
	if route.member == "" {
		return "", nil
	}
	isJSON := isJSONText(route.member)
	text, err := repl.ReplaceFunc(route.memberText, func(_ string, value any) (any, error) {
		if !isJSON {
			return value, nil
		}
		s := protocol.AppendString(nil, strings.ToValidUTF8(caddy.ToString(value), "\uFFFD"))
		return string(s[1 : len(s)-1]), nil
	})
	if err != nil {
		return "", err
	}
	data := []byte(strings.TrimSpace(text))
	switch {
	case len(data) > maxMember:
		return "", fmt.Errorf("member has %d bytes, more than %d", len(data), maxMember)
	case isJSON || len(data) > 0 && (data[0] == '{' || data[0] == '[') && hub.CheckJSON(data, memberDepth) == nil:
		if err := hub.CheckJSON(data, memberDepth); err != nil {
			return "", fmt.Errorf("member %w", err)
		}
		var line bytes.Buffer // an event stream ends with the line
		err := json.Compact(&line, data)
		return line.String(), err
	case len(data) == 0:
		return "", nil
	}
	return string(protocol.AppendString(nil, strings.ToValidUTF8(string(data), "\uFFFD"))), nil
}

// isJSONText reports whether the option is written as JSON: as an object, which no placeholder looks like (see escapeJSON), or
// as an array.
func isJSONText(text string) bool {
	text = strings.TrimSpace(text)
	return strings.HasPrefix(text, "[") || strings.HasPrefix(escapeJSON(text), `\{`)
}
