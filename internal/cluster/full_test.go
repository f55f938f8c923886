package cluster

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/internal/natstest"
)

// TestDiskFull: a nats-server whose disk is full stores nothing, and answers nobody. Publishers are told in time, clients stay,
// and others may resume from where the node is. nats-server 2.15.2 stores nothing until it is restarted, even with free space
// (setWriteErrLocked in its stream.go). Then everything goes on, and what was repeated with its key comes once.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	disk := natstest.NewDisk(t, 32<<20)
	server := natstest.StartOn(t, disk, "")
	nodes := startNodes(t, 2, func(int) string { return broker(one+"\npublish_timeout 2s\nmax_bytes 16MiB", server.URL()) })
	all := join(t, nodes, "full")
	send(t, nodes[0], "full", "before", "")
	last := send(t, nodes[1], "full", "last", "")
	all.expect(t, "before", "last")
	disk.Fill()
	large := strings.Repeat("x", 100_000) // the file system has room for small ones in a page that is there
	for range 2 {
		begun := time.Now()
		a, err := post(t.Context(), nodes[0].Addr, "full", large, "large")
		if took := time.Since(begun); err != nil || took > 10*time.Second ||
			a.status != http.StatusServiceUnavailable && a.status != http.StatusGatewayTimeout {
			t.Errorf("%+v %v after %v", a, err, took)
		}
	}
	for _, n := range nodes {
		n.waitState("broker down", func(v totals) bool { return !v.Broker.Up })
		if got := n.Totals().Connections; got != 3 {
			t.Errorf("%d of 3 clients are left", got)
		}
	}
	all = append(all, open(t, nodes[0], v1, last, "full"), open(t, nodes[1], stream, last, "full"))
	disk.Free()
	server.Kill()
	server.Run()
	for _, n := range nodes {
		n.waitUp()
	}
	id := send(t, nodes[1], "full", large, "large")
	if again := send(t, nodes[0], "full", large, "large"); again != id {
		t.Errorf("it is stored at %s, and again at %s", id, again)
	}
	send(t, nodes[0], "full", "after", "")
	all.expect(t, large, "after")
}
