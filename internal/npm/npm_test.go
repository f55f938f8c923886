package npm_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	_ "github.com/caddy-broadcast/caddy-broadcast"
	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
	"github.com/caddy-broadcast/caddy-broadcast/internal/npm"
)

func TestMain(m *testing.M) { os.Exit(caddytest.Main(m)) }

// TestClient: socket.io-client, unmodified, does all that it can with a server that has no handlers.
func TestClient(t *testing.T) {
	npm.Packages(t) // first, as it may skip
	s := caddytest.Start(t, `broadcast {
		history 100
	}
	---
	`+route("/socket.io/*", "", "1s")+route("/plain/*", "recovery off", "1s")+route("/calm/*", "recovery off", "1m")+`
	broadcast /expiring/* {
		channel {query.channel}
		expires {query.until}
		socketio
	}`)
	npm.Run(t, "client.mjs", "SITE="+s.Addr, "ADMIN="+s.Admin)
}

// TestRedis: redis-emitter and the Redis clients of Node have redis listen for a Redis.
func TestRedis(t *testing.T) {
	npm.Packages(t)
	queue := caddytest.FreeAddr(t)
	s := caddytest.Start(t, `broadcast {
		redis listen `+queue+` {
			password secret
			publish room:* plain:*
		}
	}
	---
	`+route("/plain/*", "recovery off", "1m"))
	npm.Run(t, "redis.mjs", "SITE="+s.Addr, "ADMIN="+s.Admin, "REDIS=redis://"+queue)
}

// route is a site's route, whose clients choose their channel, so that tests do not get each other's events.
func route(path, option, pings string) string {
	return `
	broadcast ` + path + ` {
		channel {query.channel}
		user {query.user}
		socketio {
			namespaces /chat-*
			greeting_event greeting
			` + option + `
		}
		join room:*
		greeting "{\"hello\": \"world\"}"
		ping_interval ` + pings + `
	}`
}

// TestScript: the files that routes serve are those of the npm package, byte for byte, and so is its license. npm has checked
// the package against the hash in package-lock.json.
func TestScript(t *testing.T) {
	dist := filepath.Join(npm.Packages(t), "socket.io-client", "dist")
	s := caddytest.Start(t, route("/socket.io/*", "", "1m"))
	for served, file := range map[string]string{
		"socket.io.js": "socket.io.min.js", "socket.io.min.js": "socket.io.min.js", "socket.io.esm.min.js": "socket.io.esm.min.js",
	} {
		want, err := os.ReadFile(filepath.Join(dist, file))
		if err != nil {
			t.Fatal(err)
		}
		if status, got := s.Do("GET", s.Addr+"/socket.io/"+served, ""); status != 200 || got != string(want) {
			t.Errorf("%s: %d, %d bytes, not the %d of npm", served, status, len(got), len(want))
		}
	}
	want, err := os.ReadFile(filepath.Join(dist, "..", "LICENSE"))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile("../socketio/script/LICENSE"); err != nil || !bytes.Equal(got, want) {
		t.Error("the license is another one", err)
	}
}
