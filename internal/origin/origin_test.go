package origin

import (
	"crypto/tls"
	"net/http"
	"strings"
	"testing"
)

func request(host string, origins ...string) *http.Request {
	return &http.Request{Host: host, Header: http.Header{"Origin": origins}}
}

func allowed(r *http.Request, patterns []Pattern) bool { return Check(r, patterns) != Denied }

func TestAllowed(t *testing.T) {
	for _, c := range []struct {
		patterns, host, origin string
		want                   bool
	}{
		{"", "example.com", "https://example.com", true},
		{"", "example.com", "http://example.com", true}, // TLS may end before us
		{"", "Example.COM", "https://example.com", true},
		{"", "example.com:443", "https://example.com", true},
		{"", "example.com", "https://example.com:443", true},
		{"", "example.com:8080", "http://example.com:8080", true},
		{"", "[::1]:8080", "http://[::1]:8080", true},
		{"", "example.com:8080", "http://example.com", false},
		{"", "example.com", "https://example.com:8443", false},
		{"", "example.com", "https://evil.com", false},
		{"", "example.com", "https://example.com.evil.com", false},
		{"", "example.com", "https://example.com@evil.com", false},
		{"", "example.com", "https://user@example.com", false},
		{"", "example.com", "example.com", false},
		{"", "example.com", "", false},
		{"", "example.com", "null", false},
		{"null", "example.com", "null", true},
		{"*", "example.com", "null", true},
		{"*", "example.com", "https://evil.com", true},
		{"*", "example.com", "nonsense", false},
		{"https://app.org", "example.com", "https://app.org", true},
		{"https://app.org", "example.com", "https://APP.org", true},
		{"https://app.org:443", "example.com", "https://app.org", true},
		{"https://app.org", "example.com", "http://app.org", false},
		{"https://app.org", "example.com", "https://sub.app.org", false},
		{"app.org", "example.com", "http://app.org", true},
		{"app.org", "example.com", "https://app.org", true},
		{"app.org", "example.com", "https://app.org:8443", false},
		{"app.org:8443", "example.com", "https://app.org:8443", true},
		{"https://*.app.org", "example.com", "https://a.b.app.org", true},
		{"https://*.app.org", "example.com", "https://app.org", false},
		{"https://*.app.org", "example.com", "https://evilapp.org", false},
		{"a.org b.org", "example.com", "https://b.org", true},
	} {
		var patterns []Pattern
		for s := range strings.FieldsSeq(c.patterns) {
			p, err := Parse(s)
			if err != nil {
				t.Fatal(err)
			}
			patterns = append(patterns, p)
		}
		if got := allowed(request(c.host, c.origin), patterns); got != c.want {
			t.Errorf("patterns %q, host %q, origin %q: %v", c.patterns, c.host, c.origin, got)
		}
	}
	if !allowed(&http.Request{Host: "example.com"}, nil) {
		t.Error("a request from no page is refused")
	}
	if allowed(request("example.com", "https://example.com", "https://evil.com"), nil) {
		t.Error("two origins pass")
	}
}

// TestFetchMetadata: a browser that sends no Origin still says whether another site's page asks, and one behind a proxy
// that changes Host still says that its own page does.
func TestFetchMetadata(t *testing.T) {
	for _, c := range []struct {
		patterns, origin, site, forwarded string
		want                              Verdict
		changed                           bool
	}{
		{"", "", "", "", SameOrigin, false},
		{"", "", "none", "", SameOrigin, false},
		{"", "", "same-origin", "", SameOrigin, false},
		{"", "", "cross-site", "", Denied, false},
		{"", "", "same-site", "", Denied, false},
		{"https://app.org", "", "cross-site", "", Denied, false},
		{"https://app.org", "", "same-site", "", Denied, false},
		{"*", "", "cross-site", "", Any, false},
		{"*", "", "none", "", SameOrigin, false},
		{"", "https://front.org", "same-origin", "", SameOrigin, true},
		{"", "https://front.org", "same-site", "", Denied, false},
		{"", "https://front.org", "cross-site", "", Denied, false},
		{"", "https://front.org", "", "front.org", Denied, true},
		{"", "https://front.org", "", "other.org", Denied, false},
		{"", "https://back.org", "", "front.org", SameOrigin, false},
		{"", "null", "same-origin", "", Denied, false},
		{"", "https://evil.org", "cross-site", "front.org", Denied, false},
	} {
		var patterns []Pattern
		for s := range strings.FieldsSeq(c.patterns) {
			p, err := Parse(s)
			if err != nil {
				t.Fatal(err)
			}
			patterns = append(patterns, p)
		}
		r := &http.Request{Host: "back.org", Header: http.Header{}}
		for name, value := range map[string]string{"Origin": c.origin, "Sec-Fetch-Site": c.site, "X-Forwarded-Host": c.forwarded} {
			if value != "" {
				r.Header.Set(name, value)
			}
		}
		if got := Check(r, patterns); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
		if got := HostChanged(r); got != c.changed {
			t.Errorf("%+v: changed %v", c, got)
		}
	}
	r := request("back.org", "http://back.org")
	r.TLS = new(tls.ConnectionState)
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	if allowed(r, nil) {
		t.Error("an http page passes on https")
	}
}

func TestParseErrors(t *testing.T) {
	for _, s := range []string{"", "https://", "://a", "a.*.org", "**", "*.", "https://a/b", "https://a?b", "a b", "u@a", "a:b"} {
		if p, err := Parse(s); err == nil {
			t.Errorf("%q is taken as %+v", s, p)
		}
	}
}

func FuzzAllowed(f *testing.F) {
	f.Add("https://*.app.org", "example.com:443", "https://a.app.org")
	f.Add("app.org:80", "[::1]:8080", "http://[::1]:8080")
	f.Add("null", "", "null")
	f.Fuzz(func(t *testing.T, pattern, host, origin string) {
		p, err := Parse(pattern)
		if err != nil {
			return
		}
		alone := allowed(request(host, origin), nil)
		with := allowed(request(host, origin), []Pattern{p})
		if alone && !with {
			t.Error("a pattern takes an origin away")
		}
		if with && !alone && pattern != "*" && pattern != "null" {
			// What a pattern lets in ends in the pattern's host.
			got := strings.ToLower(origin)
			if !strings.Contains(got, p.host) || !strings.Contains(got, "://") {
				t.Errorf("pattern %q lets in %q", pattern, origin)
			}
		}
	})
}
