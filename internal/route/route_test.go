package route

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"

	"github.com/caddy-broadcast/caddy-broadcast/internal/origin"
)

func TestKindOf(t *testing.T) {
	upgrade := []string{"Connection", "Upgrade", "Upgrade", "websocket"}
	events := []string{"Accept", "text/event-stream"}
	asks := []string{"Origin", "https://a.org", "Access-Control-Request-Method", "POST"}
	all := Route{acceptsSockets: true, acceptsStreams: true, acceptsPosts: true}
	named := all
	named.origins = make([]origin.Pattern, 1)
	for _, c := range []struct {
		name   string
		route  Route
		method string
		header []string
		want   kind
	}{
		{"handshake", all, "GET", upgrade, handshake},
		{"handshake that accepts event streams", all, "GET", append(upgrade, events...), handshake},
		{"handshake on a route without WebSockets", Route{acceptsStreams: true}, "GET", append(upgrade, events...), other},
		{"event stream", all, "GET", events, stream},
		{"event stream on a route without", Route{acceptsSockets: true}, "GET", events, other},
		{"post", all, "POST", nil, post},
		{"post that accepts event streams", all, "POST", events, post},
		{"post on a route without", Route{acceptsStreams: true}, "POST", nil, other},
		{"page", all, "GET", nil, other},
		{"put", all, "PUT", nil, other},
		{"preflight", named, "OPTIONS", asks, preflight},
		{"preflight without origins", all, "OPTIONS", asks, other},
		{"options", named, "OPTIONS", nil, other},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := httptest.NewRequest(c.method, "/ws", nil)
			for i := 0; i < len(c.header); i += 2 {
				r.Header.Set(c.header[i], c.header[i+1])
			}
			if got := c.route.kindOf(r); got != c.want {
				t.Errorf("kind %d, want %d", got, c.want)
			}
		})
	}
}

// TestDestination: a message goes to the channel that it names, or nowhere.
func TestDestination(t *testing.T) {
	channels := []string{"room:7", "news"}
	for _, c := range []struct {
		name      string
		fromQuery bool
		query     string
		channel   string
		want      string // "" is an error
	}{
		{"none", false, "", "", "room:7"},
		{"the second", false, "?channel=news", "news", "news"},
		{"another", false, "?channel=sport", "sport", ""},
		{"a part of the first", true, "?channel=7", "7", "room:7"},
		{"a part of the first, without the placeholder", false, "?channel=7", "7", ""},
		{"another in the body", true, "?channel=7", "8", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			route := Route{channelFromQuery: c.fromQuery}
			r := httptest.NewRequest(http.MethodPost, "/ws"+c.query, nil)
			if got, err := route.destination(r, c.channel, channels); got != c.want || (err != nil) != (c.want == "") {
				t.Errorf("got %q, %v; want %q", got, err, c.want)
			}
		})
	}
}

func TestQueryNames(t *testing.T) {
	got := queryNames([]string{"news", "{http.request.uri.query.a}:{http.request.uri.query.b}", "{http.auth.user.id}", "{http.request.uri.query.c"})
	if !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("got %q", got)
	}
}
