package post

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
)

// A message that names its channel in a way that we do not understand would go to the default channel, and so to others
// than it was meant for. The following refuse such requests.

// Channel is the name of a channel in JSON. A null or an empty one is refused: the program that sent it meant some channel.
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

// destination is what a request says of its message besides the data.
type destination struct {
	channel, event string
	named          bool // it names a channel
}

// set sets the values that the fields have for channel and event. No field may be there twice.
func (d *destination) set(where string, fields url.Values) error {
	for name, values := range fields {
		if len(values) > 1 && (name == "channel" || name == "event" || name == "data") {
			return fmt.Errorf("%s has %q %d times", where, name, len(values))
		}
	}
	if fields.Has("channel") {
		name := fields.Get("channel")
		switch {
		case d.named:
			return fmt.Errorf("both the query and %s name a channel", where)
		case name == "":
			return fmt.Errorf("%s has an empty channel; leave it out for the default channel", where)
		}
		d.named, d.channel = true, strings.Clone(name)
	}
	if event := fields.Get("event"); event != "" {
		if d.event != "" {
			return fmt.Errorf("both the query and %s name an event", where)
		}
		d.event = strings.Clone(event)
	}
	return nil
}

// inQuery reads the parameters channel and event. Others are refused, unless they are among more.
func inQuery(r *http.Request, more []string) (d destination, err error) {
	fields, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return d, fmt.Errorf("the query: %w", err)
	}
	for name := range fields {
		if name != "channel" && name != "event" && !slices.Contains(more, name) {
			return d, fmt.Errorf("the query parameter %q is unknown: a message has channel and event", name)
		}
	}
	err = d.set("the query", fields)
	return d, err
}

// fromForm reads the fields channel, event and data of a form, as web frameworks send it. A body without any of these
// is not meant as a form: curl -d says of everything that it is one. Then ok is false.
func (d *destination) fromForm(body []byte) (data []byte, ok bool, err error) {
	fields, err := url.ParseQuery(string(body)) // on an error without the fields that are wrong, or without any
	known := func(name string) bool {
		return fields.Has(name) || err != nil && bytes.Contains(append([]byte{'&'}, body...), []byte("&"+name+"="))
	}
	if !known("channel") && !known("event") && !known("data") {
		return nil, false, d.notEnvelope(body)
	}
	const plain = `; to publish the body as it is, send it with Content-Type: text/plain`
	if err != nil {
		return nil, false, fmt.Errorf("the form: %w"+plain, err)
	}
	if !fields.Has("data") {
		return nil, false, errors.New("the form has no field data" + plain)
	}
	for name := range fields {
		if name != "channel" && name != "event" && name != "data" {
			return nil, false, fmt.Errorf("the form's field %q is unknown: a message has channel, event and data"+plain, name)
		}
	}
	if err := d.set("the form", fields); err != nil {
		return nil, false, err
	}
	return []byte(fields.Get("data")), true, nil
}

// notEnvelope refuses a body that is an envelope in JSON, sent without the Content-Type that says so, as curl -d sends it.
func (d *destination) notEnvelope(body []byte) error {
	if d.named {
		return nil
	}
	members := membersOf(body)
	if !slices.Contains(members, "channel") || !slices.Contains(members, "data") {
		return nil
	}
	for _, name := range members {
		if !slices.Contains(envelope, name) {
			return nil
		}
	}
	return errors.New("the body is a JSON object that names a channel: send it with Content-Type: application/json, " +
		"or to publish it as it is, with Content-Type: text/plain")
}

// fromJSON reads an envelope: a JSON object that names a channel, as a line of application/x-ndjson does. If the query
// names the channel, an object with other members too is no envelope but data. Then, and if there is no channel, ok is
// false.
func (d *destination) fromJSON(m *hub.Message, body []byte) (ok bool, err error) {
	members := membersOf(body)
	if !slices.Contains(members, "channel") {
		return false, nil
	}
	if err := hub.CheckUnicode(body); err != nil {
		return false, fmt.Errorf("the JSON object %w", err)
	}
	const asData = "; to publish the object as it is, name its channel in the query"
	for _, name := range members {
		if !slices.Contains(envelope, name) {
			if d.named {
				return false, nil
			}
			return false, fmt.Errorf("the JSON object names a channel, so it is taken for a message, and %q is not one of its members: %s"+asData,
				name, strings.Join(envelope, ", "))
		}
	}
	if d.named {
		return false, errors.New("both the query and the JSON object name a channel" +
			`; to publish the object as it is, send it as the data of another: {"channel": …, "data": …}`)
	}
	var v struct {
		Channel  string          `json:"channel"`
		Event    string          `json:"event"`
		Data     json.RawMessage `json:"data"`
		Encoding string          `json:"encoding"`
		Key      string          `json:"key"`
	}
	if err := json.Unmarshal(body, &v); err != nil {
		return false, fmt.Errorf("the JSON object: %w", err)
	}
	switch {
	case v.Data == nil:
		return false, errors.New("the JSON object names a channel, and has no data" + asData)
	case v.Key != "" && m.Key != "":
		return false, errors.New("both the header Idempotency-Key and the JSON object have a key")
	}
	fields := url.Values{"channel": {v.Channel}}
	if v.Event != "" {
		fields.Set("event", v.Event)
	}
	if err := d.set("the JSON object", fields); err != nil {
		return false, err
	}
	if v.Key != "" {
		m.Key = v.Key
	}
	return true, Data(m, v.Data, v.Encoding)
}

// envelope are the members of a message in JSON.
var envelope = []string{"channel", "event", "data", "encoding", "key"}

// membersOf returns the names of a JSON object's members, in lower case, as encoding/json takes them. What is no JSON
// object has none, nor has one that cannot have a channel, for most have none and are not worth the work.
func membersOf(body []byte) (names []string) {
	object := bytes.HasPrefix(bytes.TrimLeft(body, " \t\r\n"), []byte{'{'})
	if !object || !bytes.Contains(body, []byte(`"c`)) && !bytes.Contains(body, []byte(`"C`)) && !bytes.Contains(body, []byte(`"\u`)) {
		return nil
	}
	var members map[string]json.RawMessage
	if json.Unmarshal(body, &members) != nil {
		return nil
	}
	for name := range members {
		names = append(names, strings.ToLower(name))
	}
	slices.Sort(names)
	return names
}
