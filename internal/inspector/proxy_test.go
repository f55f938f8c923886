package inspector

import (
	"net/http"
	"net/http/httptest"
	"testing"
)

// TestSameOriginOnly: the page may ask by every name of this machine, and with a port that was forwarded. Other pages may not,
// whatever their names resolve to.
func TestSameOriginOnly(t *testing.T) {
	handler := sameOriginOnly("localhost:2020", http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	for _, c := range []struct {
		host, origin, site string
		status             int
	}{
		{"localhost:2020", "", "", 200},
		{"localhost:2020", "http://localhost:2020", "same-origin", 200},
		{"localhost:3000", "http://localhost:3000", "same-origin", 200},
		{"127.0.0.1:2020", "http://127.0.0.1:2020", "", 200},
		{"[::1]:2020", "http://[::1]:2020", "", 200},
		{"localhost", "", "none", 200},
		{"localhost:2020", "http://localhost:3000", "same-site", 403},
		{"localhost:2020", "http://localhost:3000", "", 403},
		{"localhost:2020", "http://evil.example", "cross-site", 403},
		{"localhost:2020", "null", "", 403},
		{"evil.example:2020", "http://evil.example:2020", "same-origin", 403},
		{"evil.example", "", "", 403},
		{"localhost.evil.example:2020", "", "", 403},
		{"127.0.0.1.evil.example:2020", "", "", 403},
		{"10.0.0.1:2020", "", "", 403},
		{"", "", "", 403},
	} {
		r := httptest.NewRequest("POST", "/broadcast/publish", nil)
		r.Host = c.host
		for name, value := range map[string]string{"Origin": c.origin, "Sec-Fetch-Site": c.site} {
			if value != "" {
				r.Header.Set(name, value)
			}
		}
		w := httptest.NewRecorder()
		if handler.ServeHTTP(w, r); w.Code != c.status {
			t.Errorf("%+v: %d", c, w.Code)
		}
	}
}
