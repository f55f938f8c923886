package publish

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

// A message that names its channel in a way that we do not understand would go to the default channel, and so to the wrong
// subscribers. What follows rejects such requests.

// destination is what a request says of its message besides the data.
type destination struct {
	channel, event string
	conflate       string // the conflate key
	named          bool   // it names a channel
	transient      bool   // it says that the message is not to be kept
}

// set sets the values that the fields have for channel, event and conflate. No field may be there twice. The values are copied, because
// they are parts of the query or the body, and a message in the history would keep all of it in memory.
func (d *destination) set(where string, fields url.Values) error {
	for name, values := range fields {
		// url.Values.Get would take the first one. A proxy in front may have looked at the last.
		if len(values) > 1 && (name == "channel" || name == "event" || name == "conflate" || name == "data") {
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
	if key := fields.Get("conflate"); key != "" {
		if d.conflate != "" {
			return fmt.Errorf("both the query and %s have a conflate key", where)
		}
		d.conflate = key // which is copied where it is made one
	}
	return nil
}

// Parameters are what a query can say of a message.
var Parameters = []string{"channel", "event", "conflate", "keep"}

// inQuery reads the parameters channel, event, conflate and keep. Others are rejected, unless they are among more.
func inQuery(r *http.Request, more []string) (d destination, err error) {
	// Not r.URL.Query, which silently drops what it cannot parse.
	fields, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return d, fmt.Errorf("the query: %w", err)
	}
	for name := range fields {
		if !slices.Contains(Parameters, name) && !slices.Contains(more, name) {
			return d, fmt.Errorf("the query parameter %q is unknown: a message has channel, event, conflate and keep", name)
		}
	}
	if fields.Has("keep") && !slices.Contains(more, "keep") {
		// One that is misspelled would keep what should not be.
		if v := fields["keep"]; len(v) != 1 || v[0] != "0" && v[0] != "1" {
			return d, fmt.Errorf("keep is %q, must be 0 or 1", strings.Join(v, ", "))
		}
		d.transient = fields.Get("keep") == "0"
	}
	err = d.set("the query", fields)
	return d, err
}

// fromForm reads the fields channel, event, conflate and data of a form, as web frameworks send it. A body without any of these is
// not meant as a form, since curl -d labels every body as one. Then ok is false.
func (d *destination) fromForm(body []byte) (data []byte, ok bool, err error) {
	fields, err := url.ParseQuery(string(body)) // on an error without the fields that are wrong, or without any
	known := func(name string) bool {
		return fields.Has(name) || err != nil && bytes.Contains(append([]byte{'&'}, body...), []byte("&"+name+"="))
	}
	if !known("channel") && !known("event") && !known("data") {
		return nil, false, d.notObject(body)
	}
	const plain = `; to publish the body as it is, send it with Content-Type: text/plain`
	if err != nil {
		return nil, false, fmt.Errorf("the form: %w"+plain, err)
	}
	if !fields.Has("data") {
		return nil, false, errors.New("the form has no field data" + plain)
	}
	for name := range fields {
		if name != "channel" && name != "event" && name != "conflate" && name != "data" {
			return nil, false, fmt.Errorf("the form's field %q is unknown: a message has channel, event, conflate and data"+plain, name)
		}
	}
	if err := d.set("the form", fields); err != nil {
		return nil, false, err
	}
	return []byte(fields.Get("data")), true, nil
}

// notObject rejects a body that is a message object, sent without the Content-Type that says so, as curl -d sends it.
func (d *destination) notObject(body []byte) error {
	// The query says where the message goes, so the body can only be its data.
	if d.named {
		return nil
	}
	names := membersOf(body)
	if !slices.Contains(names, "channel") || !slices.Contains(names, "data") {
		return nil
	}
	for _, name := range names {
		if !slices.Contains(members, name) {
			return nil
		}
	}
	return errors.New("the body is a JSON object that names a channel: send it with Content-Type: application/json, " +
		"or to publish it as it is, with Content-Type: text/plain")
}

// fromJSON reads a message object that names a channel. If the query names the channel, an object with other members too is
// the data itself. Then, and if the object names no channel, it returns nil. Key is the key that the request's header has.
func (d *destination) fromJSON(body []byte, key string) (*Object, error) {
	names := membersOf(body)
	if !slices.Contains(names, "channel") {
		return nil, nil
	}
	if err := hub.CheckUnicode(body); err != nil {
		return nil, fmt.Errorf("the JSON object %w", err)
	}
	const asData = "; to publish the object as it is, name its channel in the query"
	for _, name := range names {
		if !slices.Contains(members, name) {
			if d.named {
				return nil, nil
			}
			return nil, fmt.Errorf("the JSON object names a channel, so it is taken for a message, and %q is not one of its members: %s"+asData,
				name, strings.Join(members, ", "))
		}
	}
	if d.named {
		return nil, errors.New("both the query and the JSON object name a channel" +
			`; to publish the object as it is, send it as the data of another: {"channel": …, "data": …}`)
	}
	o, err := Decode(body)
	if err != nil {
		return nil, fmt.Errorf("the JSON object: %w", err)
	}
	switch {
	case o.Data == nil:
		return nil, errors.New("the JSON object names a channel, and has no data" + asData)
	case o.Keep != nil && d.transient:
		return nil, errors.New("both the query and the JSON object have keep")
	case o.Key != "" && key != "":
		return nil, errors.New("both the header Idempotency-Key and the JSON object have a key")
	}
	fields := url.Values{"channel": {string(o.Channel)}}
	if o.Event != "" {
		fields.Set("event", o.Event)
	}
	if o.Conflate != "" {
		fields.Set("conflate", o.Conflate)
	}
	if err := d.set("the JSON object", fields); err != nil {
		return nil, err
	}
	return o, nil
}

// membersOf returns the names of a JSON object's members, in lower case, because encoding/json ignores case. It returns none
// for anything but an object, and for an object that cannot have a channel: most have none, and are not worth the work.
func membersOf(body []byte) (names []string) {
	// A name may be escaped, in part or as a whole, hence `"\u`. A false alarm costs time only: the object is then
	// decoded.
	object := bytes.HasPrefix(bytes.TrimLeft(body, " \t\r\n"), []byte{'{'})
	if !object || !bytes.Contains(body, []byte(`"c`)) && !bytes.Contains(body, []byte(`"C`)) && !bytes.Contains(body, []byte(`"\u`)) {
		return nil
	}
	var values map[string]json.RawMessage
	if json.Unmarshal(body, &values) != nil {
		return nil
	}
	for name := range values {
		names = append(names, strings.ToLower(name))
	}
	slices.Sort(names)
	return names
}
