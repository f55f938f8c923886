package publish

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
)

const (
	asForm = "application/x-www-form-urlencoded"
	asJSON = "application/json"
)

func message(query, contentType, body string, more ...string) (*hub.Message, error) {
	r := httptest.NewRequest("POST", "/", strings.NewReader(body))
	r.URL.RawQuery = query
	if contentType != "" {
		r.Header.Set("Content-Type", contentType)
	}
	return Message(httptest.NewRecorder(), r, http.DefaultMaxHeaderBytes, more...)
}

func TestMessage(t *testing.T) {
	for _, c := range []struct {
		query, contentType, body string
		channel, event, data     string
		kind                     hub.Kind
	}{
		{"", "", "a=b", "", "", "a=b", hub.Text},
		{"", asForm, "a=b", "", "", "a=b", hub.Text},
		{"", asForm, "hello", "", "", "hello", hub.Text},
		{"", asForm, "100%", "", "", "100%", hub.Text},
		{"", asForm, "a;b", "", "", "a;b", hub.Text},
		{"", asForm, "data=1+2&event=e&channel=c", "c", "e", "1 2", hub.Text},
		{"channel=c&event=e", asForm, "data=", "c", "e", "", hub.Text},
		{"channel=c&event=", "", "x", "c", "", "x", hub.Text},
		{"token=t", "", "x", "", "", "x", hub.Text},
		{"", asJSON, `{"data":"x"}`, "", "", `{"data":"x"}`, hub.JSON},
		{"", asJSON, `["channel"]`, "", "", `["channel"]`, hub.JSON},
		{"", asJSON, `{"a":{"channel":"c"}}`, "", "", `{"a":{"channel":"c"}}`, hub.JSON},
		{"", asJSON, ` {"channel":"c","event":"e","data":{"x":1}}`, "c", "e", `{"x":1}`, hub.JSON},
		{"", asJSON, `{"Channel":"c","Data":"text"}`, "c", "", "text", hub.Text},
		{"", asJSON, `{"channel":"c","data":"AP8=","encoding":"base64"}`, "c", "", "\x00\xff", hub.Binary},
		{"event=e", asJSON, `{"channel":"c","data":null}`, "c", "e", "null", hub.JSON},
		{"channel=c", asJSON, `{"channel":"email","to":"ann"}`, "c", "", `{"channel":"email","to":"ann"}`, hub.JSON},
		{"", "application/json; charset=utf-8", "{}", "", "", "{}", hub.JSON},
		{"", "application/cloudevents+json", `{"channel":"email"}`, "", "", `{"channel":"email"}`, hub.JSON},
		{"", "Application/LD+JSON", "{}", "", "", "{}", hub.JSON},
		{"", "application/json-seq", "{}", "", "", "{}", hub.Binary},
		{"", "text/html", "<p>", "", "", "<p>", hub.Text},
	} {
		m, err := message(c.query, c.contentType, c.body, "token")
		if err != nil || m.Channel != c.channel || m.Event != c.event || string(m.Data) != c.data || m.Kind != c.kind {
			t.Errorf("?%s %s %q: %+v, %v", c.query, c.contentType, c.body, m, err)
		}
	}
}

// TestConflate: a message's conflate key is in the query, in a form or in an object, and only once.
func TestConflate(t *testing.T) {
	for _, c := range []struct{ query, contentType, body, want string }{
		{"conflate=row:7", "", "x", "row:7"},
		{"conflate=", "", "x", ""},
		{"", asForm, "data=x&conflate=a", "a"},
		{"conflate=a", asForm, "data=x", "a"},
		{"", asJSON, `{"channel":"c","data":1,"conflate":"a"}`, "a"},
		{"conflate=a", asJSON, `{"channel":"c","data":1}`, "a"},
	} {
		m, err := message(c.query, c.contentType, c.body)
		if err != nil || m.Conflate.String() != c.want {
			t.Errorf("?%s %q: %+v, %v", c.query, c.body, m, err)
		}
	}
	for _, c := range []struct{ query, contentType, body string }{
		{"conflate=a&conflate=b", "", "x"},
		{"conflate=a", asForm, "data=x&conflate=a"},
		{"conflate=a", asJSON, `{"channel":"c","data":1,"conflate":"a"}`},
		{"", asJSON, `{"channel":"c","data":1,"conflate":7}`},
	} {
		if m, err := message(c.query, c.contentType, c.body); err == nil {
			t.Errorf("?%s %q: %+v", c.query, c.body, m)
		}
	}
}

// TestMisaddressed: what names its channel in a way that is not understood is refused, not published on the default
// channel.
func TestMisaddressed(t *testing.T) {
	for _, c := range []struct{ query, contentType, body, want string }{
		{"chanel=c", "", "x", `parameter "chanel" is unknown`},
		{"channel=", "", "x", "empty channel"},
		{"channel", "", "x", "empty channel"},
		{"channel=a&channel=b", "", "x", `has "channel" 2 times`},
		{"channel=%zz", "", "x", "invalid URL escape"},
		{"channel=a;b", "", "x", "invalid semicolon"},
		{"", asForm, "channel=c", "no field data"},
		{"", asForm, "event=e", "no field data"},
		{"", asForm, "channel=c&dat=x", "no field data"},
		{"", asForm, "chanel=c&data=x", `field "chanel" is unknown`},
		{"", asForm, "channel=&data=x", "empty channel"},
		{"", asForm, "channel=c;d&data=x", "invalid semicolon"},
		{"", asForm, "data=x&data=y", `has "data" 2 times`},
		{"", asForm, "channel=c&data=x" + strings.Repeat("&", 20_000), "parameters exceeded"},
		{"", asForm, "channel=%zz", "invalid URL escape"},
		{"channel=c", asForm, "channel=c&data=x", "both the query and the form name a channel"},
		{"event=e", asForm, "event=e&data=x", "both the query and the form name an event"},
		{"", "multipart/form-data; boundary=x", "--x--", "not multipart"},
		{"", asJSON, `{"channel":"c"}`, "has no data"},
		{"", asJSON, `{"channel":"c","dta":"x"}`, `"dta" is not one of its members`},
		{"", asJSON, `{"channel":"","data":"x"}`, "channel is empty"},
		{"", asJSON, `{"channel":null,"data":"x"}`, "channel is null"},
		{"", asJSON, `{"channel":5,"data":"x"}`, "channel is not a string"},
		{"", asJSON, `{"channel":"c","data":5,"encoding":"base64"}`, "not a string"},
		{"", asJSON, "{\"channel\":\"c\",\"data\":\"\xff\"}", "UTF-8"},
		{"channel=c", asJSON, `{"channel":"c","data":"x"}`, "both the query and the JSON object name a channel"},
	} {
		m, err := message(c.query, c.contentType, c.body)
		refusal := new(HTTPError)
		if !errors.As(err, &refusal) || refusal.Status/100 != 4 || !strings.Contains(err.Error(), c.want) {
			t.Errorf("?%s %s %q: %+v, %v", c.query, c.contentType, c.body, m, err)
		}
	}
}

// FuzzDestination: a message's channel is the only one that the request names.
func FuzzDestination(f *testing.F) {
	f.Add("channel=a", asForm, "channel=b&data=c")
	f.Add("chanel=a", "", "x")
	f.Add("", asJSON, `{"channel":"a","data":"b","event":"c"}`)
	f.Add("channel=a", asJSON, `{"channel":"a","b":[{}]}`)
	f.Fuzz(func(t *testing.T, query, contentType, body string) {
		m, err := message(query, contentType, body)
		if err != nil {
			if refusal := new(HTTPError); !errors.As(err, &refusal) || refusal.Status/100 != 4 {
				t.Fatalf("refused with %v", err)
			}
			return
		}
		fields, err := url.ParseQuery(query)
		if err != nil {
			t.Fatalf("the query %q passes", query)
		}
		for name := range fields {
			if name != "channel" && name != "event" {
				t.Fatalf("the parameter %q passes", name)
			}
		}
		if fields.Has("channel") && m.Channel != fields.Get("channel") {
			t.Fatalf("?%s is published on %q", query, m.Channel)
		}
		if !fields.Has("channel") && m.Channel != "" && !strings.Contains(strings.ToLower(body), "channel") && !strings.Contains(body, `\u`) && !strings.Contains(body, "%") {
			t.Fatalf("%q is published on %q", body, m.Channel)
		}
	})
}
