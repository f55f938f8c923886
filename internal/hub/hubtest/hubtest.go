// Package hubtest has what tests of the hub's formats share.
package hubtest

import (
	"encoding/json"
	"unicode/utf8"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
)

// Message makes a message as the hub hands it to a format, with 7 as its sequence number. It returns nil if the hub
// would reject the message, because formats may rely on it that those never come.
func Message(channel, event string, kind uint8, data []byte) *hub.Message {
	m := &hub.Message{Channel: channel, Event: event, Kind: hub.Kind(kind % 3), Data: data, Seq: 7}
	if hub.CheckName("", channel) != nil || event != "" && hub.CheckName("", event) != nil ||
		m.Kind != hub.Binary && !utf8.Valid(data) || m.Kind == hub.JSON && !json.Valid(data) {
		return nil
	}
	return m
}
