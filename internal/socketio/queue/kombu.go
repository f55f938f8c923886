package queue

import (
	"encoding/base64"
	"fmt"
	"strings"
)

// isKombu reports whether kombu publishes to the channel what is meant for the exchange: "/0.socketio", with the number of
// the database (kombu/transport/redis.py, keyprefix_fanout).
func isKombu(channel, exchange string) bool {
	if channel == "" || channel[0] != '/' { // as nearly all
		return false
	}
	db, ok := strings.CutSuffix(channel, "."+exchange)
	if !ok || len(db) < 2 || db[0] != '/' {
		return false
	}
	for _, c := range []byte(db[1:]) {
		if !isDigit(c) {
			return false
		}
	}
	return true
}

// kombu takes what python-socketio publishes out of kombu's envelope (kombu/transport/virtual/base.py, prepare_message).
func (d *Decoder) kombu(payload []byte) (Command, error) {
	var body, properties value
	err := object(payload, func(key []byte, v value) {
		switch string(key) {
		case "body":
			body = v
		case "properties":
			properties = v
		}
	})
	if err != nil {
		return Command{}, err
	}
	text, err := body.text()
	if err != nil {
		return Command{}, fmt.Errorf("the body is %w", err)
	}
	var encoding value
	if !properties.isNull() {
		err := object(properties.raw, func(key []byte, v value) {
			if string(key) == "body_encoding" {
				encoding = v
			}
		})
		if err != nil {
			return Command{}, fmt.Errorf("the properties are %w", err)
		}
	}
	// Without an encoding, the body is the text itself. Python's JSON survives that, and a pickle does not, so kombu
	// writes base64 by default.
	if string(encoding.raw) != `"base64"` {
		return d.python([]byte(text))
	}
	message, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return Command{}, fmt.Errorf("the body is not base64")
	}
	return d.python(message)
}
