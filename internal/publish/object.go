package publish

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
)

// Object is a message in JSON: the body of a POST, a line of application/x-ndjson, and a publish request of broadcast.v1.
type Object struct {
	Channel  Channel         `json:"channel"` // "" if it names none
	Event    string          `json:"event"`
	Data     json.RawMessage `json:"data"`
	Encoding string          `json:"encoding"`
	Key      string          `json:"key"`
	Keep     *bool           `json:"keep"` // nil is true
	Conflate string          `json:"conflate"`
}

// members are the names of an Object's members.
var members = []string{"channel", "event", "data", "encoding", "key", "keep", "conflate"}

// Decode decodes one object. It rejects unknown members, since one that is misspelled would send the message elsewhere.
func Decode(data []byte) (*Object, error) {
	o := new(Object)
	d := json.NewDecoder(bytes.NewReader(data))
	// Without this, {"chanel": "a"} would be a message on the default channel.
	d.DisallowUnknownFields()
	if err := d.Decode(o); err != nil {
		return nil, err
	}
	// A decoder stops after the first value. A second one would be lost.
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("there is more than one JSON value")
	}
	// encoding/json silently replaces what is not Unicode with U+FFFD. The message would not be what was sent.
	if err := hub.CheckUnicode(data); err != nil {
		return nil, err
	}
	return o, nil
}

// Channel is the name of a channel in JSON. A null or an empty one is rejected, because the program that sent it meant some
// channel, and the message would go to the default one.
type Channel string

// UnmarshalJSON implements json.Unmarshaler.
func (c *Channel) UnmarshalJSON(b []byte) error {
	var name *string
	switch err := json.Unmarshal(b, &name); {
	case err != nil:
		return errors.New("the channel is not a string")
	case name == nil:
		return errors.New("the channel is null; leave it out for the default channel")
	case *name == "":
		return errors.New("the channel is empty; leave it out for the default channel")
	}
	*c = Channel(*name)
	return nil
}

// Message returns the object's message, on a channel. Data that is a string is published as text, or as binary data with
// the encoding base64. Any other data is published as JSON.
func (o *Object) Message(channel string) (*hub.Message, error) {
	m := &hub.Message{Channel: channel, Event: o.Event, Key: o.Key, Transient: o.Keep != nil && !*o.Keep, Conflate: hub.NewConflateKey(o.Conflate)}
	if o.Data == nil {
		return nil, errors.New("the message has no data")
	}
	var s string
	isString := o.Data[0] == '"'
	if isString {
		if err := json.Unmarshal(o.Data, &s); err != nil {
			return nil, err
		}
	}
	switch {
	case o.Encoding == "base64" && isString:
		// With padding, as btoa and most libraries make it.
		data, err := base64.StdEncoding.DecodeString(s)
		if err != nil {
			return nil, fmt.Errorf("the data: %w", err)
		}
		m.Data, m.Kind = data, hub.Binary
	case o.Encoding == "base64":
		return nil, errors.New("the data is not a string, as the encoding base64 needs")
	case o.Encoding != "":
		return nil, fmt.Errorf("the encoding %q is not base64", o.Encoding)
	case isString:
		m.Data = []byte(s)
	default:
		// A copy, since o.Data is a part of a larger frame or body, which the message would keep in memory.
		m.Data, m.Kind = bytes.Clone(o.Data), hub.JSON
	}
	return m, nil
}
