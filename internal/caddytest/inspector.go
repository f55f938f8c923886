package caddytest

import (
	"fmt"
	"net"
	"net/http/httptest"
	"testing"

	"github.com/caddy-broadcast/caddy-broadcast/internal/inspector"
)

// ServeInspector serves the inspector of an admin endpoint as `caddy broadcast ui` does, and returns its host and port, and what ends it.
func ServeInspector(t testing.TB, admin string) (host string, end func()) {
	t.Helper()
	l, err := net.Listen("tcp", "localhost:0")
	if err != nil {
		t.Fatal(err)
	}
	host = fmt.Sprint("localhost:", l.Addr().(*net.TCPAddr).Port)
	handler, err := inspector.Handler(host, admin)
	if err != nil {
		t.Fatal(err)
	}
	web := httptest.NewUnstartedServer(handler)
	web.Listener.Close()
	web.Listener = l
	web.Start()
	// The page's event stream does not end by itself.
	end = func() { web.CloseClientConnections(); web.Close() }
	t.Cleanup(end)
	return host, end
}
