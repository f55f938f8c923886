package publish

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
)

func TestBody(t *testing.T) {
	const limit = 64 << 20
	for _, c := range []struct {
		name   string
		body   io.Reader
		length int64
		want   int // bytes, or else
		status int
	}{
		{"empty", strings.NewReader(""), 0, 0, 0},
		{"short", strings.NewReader("hello"), 5, 5, 0},
		{"long, in pieces", iotest.OneByteReader(strings.NewReader(strings.Repeat("x", 100_000))), 100_000, 100_000, 0},
		{"of unknown length", strings.NewReader(strings.Repeat("x", 100_000)), -1, 100_000, 0},
		{"announced and not sent", strings.NewReader("hello"), limit, 0, 400},
		{"announced too long", strings.NewReader("hello"), limit + 1, 0, 413},
		{"too long", io.LimitReader(zeros{}, limit+1), -1, 0, 413},
	} {
		r := httptest.NewRequest("POST", "/", c.body)
		r.ContentLength = c.length
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		data, err := Body(httptest.NewRecorder(), r, limit)
		runtime.ReadMemStats(&after)
		refusal := new(HTTPError)
		if errors.As(err, &refusal) != (c.status != 0) || refusal.Status != c.status || len(data) != c.want {
			t.Errorf("%s: %d bytes, %v", c.name, len(data), err)
		}
		if n := after.TotalAlloc - before.TotalAlloc; c.length == limit && n > 1<<20 {
			t.Errorf("%s: took %d bytes", c.name, n)
		}
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

// TestFormIsNotKept: of a form nothing is kept but what the message has.
func TestFormIsNotKept(t *testing.T) {
	var kept []*hub.Message
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for range 1000 {
		r := httptest.NewRequest("POST", "/", strings.NewReader("channel=c&event=e&data=x"+strings.Repeat("&", 5_000)))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		m, err := Message(httptest.NewRecorder(), r, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		kept = append(kept, m)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if n := int64(after.HeapAlloc) - int64(before.HeapAlloc); n > 2<<20 {
		t.Errorf("%d messages keep %d bytes", len(kept), n)
	}
	runtime.KeepAlive(kept)
}

func TestMediaTypes(t *testing.T) {
	for _, c := range []struct {
		contentType, body, channel, event, data string
		kind                                    hub.Kind
	}{
		{"", "a=b", "", "", "a=b", hub.Text},
		{"application/x-www-form-urlencoded", "a=b", "", "", "a=b", hub.Text},
		{"application/x-www-form-urlencoded", "data=1+2&event=e&channel=c", "c", "e", "1 2", hub.Text},
		{"text/html", "<p>", "", "", "<p>", hub.Text},
		{"application/json; charset=utf-8", "{}", "", "", "{}", hub.JSON},
		{"application/cloudevents+json", "{}", "", "", "{}", hub.JSON},
		{"Application/LD+JSON", "{}", "", "", "{}", hub.JSON},
		{"application/json-seq", "{}", "", "", "{}", hub.Binary},
		{"application/octet-stream", "{}", "", "", "{}", hub.Binary},
	} {
		r := httptest.NewRequest("POST", "/", strings.NewReader(c.body))
		if c.contentType != "" {
			r.Header.Set("Content-Type", c.contentType)
		}
		m, err := Message(httptest.NewRecorder(), r, http.DefaultMaxHeaderBytes)
		if err != nil || m.Channel != c.channel || m.Event != c.event || string(m.Data) != c.data || m.Kind != c.kind {
			t.Errorf("%q: %+v, %v", c.body, m, err)
		}
	}
}

// TestOwner: a client without a name is its address, and of IPv6 its network.
func TestOwner(t *testing.T) {
	for _, c := range [][3]string{
		{"ann", "192.0.2.1", "route:ann"},
		{"", "192.0.2.1", "address:192.0.2.1"},
		{"", "::ffff:192.0.2.1", "address:192.0.2.1"},
		{"", "2001:db8:1:2:3::4", "address:2001:db8:1:2::/64"},
		{"", "2001:db8:1:2:5::6", "address:2001:db8:1:2::/64"},
		{"", "2001:db8:1:2::/64", "address:2001:db8:1:2::/64"},
		{"", "fe80::1%eth0", "address:fe80::1%eth0"},
		{"", "@", "address:@"},
	} {
		if got := Owner(c[0], c[1]); got != c[2] {
			t.Errorf("%q at %q: %q, not %q", c[0], c[1], got, c[2])
		}
	}
}
