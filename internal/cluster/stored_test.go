package cluster

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddy-broadcast/caddy-broadcast/internal/natstest"
	"github.com/caddy-broadcast/caddy-broadcast/internal/redistest"
)

// What docs/operations.md says of backups, of disk and of memory.

// TestRestoreBackup: all nodes are stopped, the server gets an older copy of its store, and all are started again. Nobody
// knows that messages are lost, so their positions are given again, and a client that comes back late is not told. To delete
// the stream, or the key that has the epoch, is what tells everybody.
func TestRestoreBackup(t *testing.T) {
	t.Parallel()
	t.Run("NATS", func(t *testing.T) {
		server := natstest.Start(t, "")
		testRestore(t, natsServer{server}, broker(one, server.URL()), server.Snapshot, func() {
			_, js := server.JetStream(t)
			if err := js.DeleteStream("BROADCAST"); err != nil {
				t.Fatal(err)
			}
		})
	})
	t.Run("Redis", func(t *testing.T) {
		server := redistest.Start(t, redistest.AOF)
		dir, copied := filepath.Join(filepath.Dir(server.Socket), "appendonlydir"), filepath.Join(t.TempDir(), "copy")
		must := func(err error) {
			if err != nil {
				t.Fatal(err)
			}
		}
		testRestore(t, server, redis("durable", server.URL()), func() func() {
			must(os.CopyFS(copied, os.DirFS(dir)))
			return func() {
				must(os.RemoveAll(dir))
				must(os.CopyFS(dir, os.DirFS(copied)))
			}
		}, func() { server.Do("DEL", "{bc:0}:m") })
	})
}

func testRestore(t *testing.T, server server, options string, snapshot func() (rollBack func()), beginAnew func()) {
	n := startNodes(t, 1, func(int) string { return options })[0]
	send(t, n, "restore", "kept", "")
	n.stop()
	server.Kill()
	rollBack := snapshot()
	server.Run()
	server.WaitReady()
	n.run(t)
	n.waitUp()
	lost := send(t, n, "restore", "lost", "")
	n.stop()
	server.Kill()
	rollBack()
	server.Run()
	server.WaitReady()
	n.run(t)
	n.waitUp()
	// Sooner it would be told: the log has not reached its position.
	again := ""
	for seqOf(again) < seqOf(lost) {
		again = send(t, n, "restore", "other", "")
	}
	c := open(t, n, v1, lost, "restore")
	if seqOf(again) > seqOf(lost) { // what the node itself stores takes sequence numbers too
		c.expect(t, "other")
	}
	send(t, n, "restore", "next", "")
	c.expect(t, "next") // and no gap: docs/operations.md says that this is so
	before := n.epoch()
	n.stop()
	beginAnew()
	n.run(t)
	n.waitUp()
	if n.epoch() == before {
		t.Error("the epoch is the one before")
	}
	open(t, n, v1, again, "restore").expectGap(t, "restore")
}

// TestStored: what docs/operations.md says that a message takes on the broker beside its own bytes is enough.
func TestStored(t *testing.T) {
	t.Parallel()
	const size = 128
	fill := func(n *node, channels, each int) {
		line := strings.Repeat("x", size)
		var lines strings.Builder
		for c := range channels {
			for range each {
				fmt.Fprintf(&lines, "{\"channel\":\"channel-%04d\",\"data\":%q}\n", c, line)
			}
		}
		if status, body := n.Post(n.Admin+"/broadcast/publish", "application/x-ndjson", lines.String()); status != http.StatusOK {
			t.Fatal(status, body)
		}
	}
	expect := func(t *testing.T, name string, got, most float64) {
		t.Helper()
		t.Logf("%s: %.0f bytes, documented as %.0f", name, got, most)
		if got > most {
			t.Errorf("%s takes %.0f bytes, and docs/operations.md says %.0f", name, got, most)
		}
	}
	t.Run("NATS", func(t *testing.T) {
		server := natstest.Start(t, "")
		fill(startNodes(t, 1, func(int) string { return broker(one, server.URL()) })[0], 100, 100)
		_, js := server.JetStream(t)
		info, err := js.StreamInfo("BROADCAST")
		if err != nil {
			t.Fatal(err)
		}
		expect(t, "a message", float64(info.State.Bytes)/float64(info.State.Msgs)-size, storedByNATS)
	})
	onRedis := func(program, config string, message, channel float64) {
		t.Run(program+" "+config, func(t *testing.T) {
			server := redistest.StartProgram(t, program, config)
			n := startNodes(t, 1, func(int) string { return redis("", server.URL()) })[0]
			used := func() (bytes float64) {
				_, text, _ := strings.Cut(server.Do("INFO", "memory"), "used_memory:")
				if _, err := fmt.Sscanf(text, "%g", &bytes); err != nil {
					t.Fatal(err)
				}
				return bytes
			}
			before := used()
			fill(n, 100, 100)
			expect(t, "a message", (used()-before)/100/100-size, message)
			before = used()
			fill(n, 5000, 1) // 100 of them have a hundred already
			expect(t, "a channel with one message", (used()-before)/4900-size, channel)
		})
	}
	for _, program := range redistest.Programs(t) {
		onRedis(program, "", storedByRedis, channelOfRedis)
		onRedis(program, "stream-node-max-bytes 512", 2*storedByRedis, channelOfRedis/4)
	}
}

// What docs/operations.md says that the broker stores with each message, in bytes.
const storedByNATS, storedByRedis, channelOfRedis = 200, 60, 4800
