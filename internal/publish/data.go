package publish

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
)

// Data sets a message's data from JSON: a string is what it says, or what it says in base64; anything else is JSON.
func Data(m *hub.Message, raw json.RawMessage, encoding string) error {
	if raw == nil {
		return errors.New("has no data")
	}
	var s string
	isString := raw[0] == '"'
	if isString {
		if err := json.Unmarshal(raw, &s); err != nil {
			return err
		}
	}
	switch {
	case encoding == "base64" && isString:
		data, err := base64.StdEncoding.DecodeString(s)
		if err != nil {
			return fmt.Errorf("the data: %w", err)
		}
		m.Data, m.Kind = data, hub.Binary
	case encoding == "base64":
		return errors.New("the data is not a string, as the encoding base64 needs")
	case encoding != "":
		return fmt.Errorf("the encoding %q is not base64", encoding)
	case isString:
		m.Data = []byte(s)
	default:
		m.Data, m.Kind = bytes.Clone(raw), hub.JSON // raw is a part of more
	}
	return nil
}
