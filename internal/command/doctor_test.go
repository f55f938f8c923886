package command

import "testing"

func TestRouteURL(t *testing.T) {
	for address, want := range map[string]string{
		"example.com/ws":            "https://example.com/ws",
		"localhost:8080/ws":         "http://localhost:8080/ws",
		"shop.localhost:8080/ws":    "http://shop.localhost:8080/ws",
		"localhost.example.com/ws":  "https://localhost.example.com/ws",
		"127.0.0.1:8080/ws":         "http://127.0.0.1:8080/ws",
		"[::1]:8080/ws":             "http://[::1]:8080/ws",
		"[2001:db8::1]/ws":          "https://[2001:db8::1]/ws",
		"ws://example.com/ws":       "http://example.com/ws",
		"wss://example.com/ws?a=b":  "https://example.com/ws?a=b",
		"https://a:b@example.com/w": "https://a:b@example.com/w",
	} {
		if u, err := routeURL(address); err != nil || u.String() != want {
			t.Errorf("%s: got %v, %v", address, u, err)
		}
	}
	for _, address := range []string{"", "/ws", "ftp://example.com/ws", "https://:443/ws", "https://example.com:0/ws", "https://example.com:99999/ws"} {
		if u, err := routeURL(address); err == nil {
			t.Errorf("%q: got %v", address, u)
		}
	}
}
