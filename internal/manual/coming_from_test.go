package manual

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// comingFrom returns the code in the last column of the README's table for those who come from another server.
func comingFrom(t *testing.T) (all []string) {
	t.Helper()
	_, section, ok := strings.Cut(read(t, "README.md"), "\n## Coming from another server\n")
	if !ok {
		t.Fatal("README.md does not have the section")
	}
	section, _, _ = strings.Cut(section, "\n## ")
	for line := range strings.Lines(section) {
		columns := strings.Split(line, " | ")
		if len(columns) < 3 {
			continue
		}
		for _, m := range spans.FindAllStringSubmatch(columns[len(columns)-1], -1) {
			all = append(all, m[1])
		}
	}
	if len(all) < 20 {
		t.Fatalf("%d", len(all))
	}
	return all
}

// TestComingFromCaddyfiles: Caddy takes what the table has for the Caddyfile.
func TestComingFromCaddyfiles(t *testing.T) {
	// Tested elsewhere: a shell's by TestComingFrom, and the client's by TestClientNames. The rest is of a browser or an app.
	other := regexp.MustCompile(`^(?:curl |hub\.|new EventSource|message_queue=|@|fetch$|[a-z_]+$|redis listen$)`)
	n := 0
	for _, text := range comingFrom(t) {
		if other.MatchString(text) {
			continue
		}
		n++
		config := whole(text)
		if config == text {
			t.Errorf("%s is neither a known directive nor anything else that is tested", text)
		} else if err := check(config); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
	if n < 8 {
		t.Errorf("only %d lines were found", n)
	}
}

// TestComingFrom: with the routes of the table, what its commands publish reaches those who listen as it says.
func TestComingFrom(t *testing.T) {
	requirePrograms(t, "curl")
	all := comingFrom(t)
	routes := []string{"broadcast /rooms/* room:{path.1}"} // which the table leaves to Socket.IO
	for _, text := range all {
		if strings.HasPrefix(text, "broadcast /") && !strings.HasPrefix(text, "broadcast /socket.io") {
			routes = append(routes, text)
		}
	}
	s := newSite(t, description{site: strings.Join(routes, "\n\t")})
	used := make(map[string]bool)
	for _, c := range []struct{ from, command, path, event, data string }{
		{"Socket.IO", `curl --json '{"price":3}' `, "/rooms/7", "update", `{"price":3}`},
		{"Pusher", `curl --json '{"channel":"news","event"`, "/ws", "update", `{"price":3}`},
		{"Mercure", "curl -d channel=books/1 ", "/books/1", "", `"hi"`},
		{"nchan", "curl -d hi ", "/sub/tea", "", `"hi"`},
		{"Centrifugo", `curl --json '{"channel":"news","data"`, "/ws", "", `{"price":3}`},
	} {
		t.Run(c.from, func(t *testing.T) {
			i := slices.IndexFunc(all, func(s string) bool { return strings.HasPrefix(s, c.command) })
			if i < 0 {
				t.Fatalf("the table does not have %s", c.command)
			}
			used[all[i]] = true
			server := s.In(t)
			client := server.Dial(c.path, &websocket.DialOptions{Subprotocols: []string{"broadcast.v1"}})
			client.Read(t.Context()) // its hello
			if out, err := s.run(t, all[i]); err != nil {
				t.Fatal(out, err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second) // for what goes to another channel
			defer cancel()
			_, frame, err := client.Read(ctx)
			var got []struct {
				Event string
				Data  json.RawMessage
			}
			if err != nil || json.Unmarshal(frame, &got) != nil || len(got) != 1 || got[0].Event != c.event || string(got[0].Data) != c.data {
				t.Errorf("%s: %s %v", all[i], frame, err)
			}
		})
	}
	for _, text := range all {
		if strings.HasPrefix(text, "curl ") && !used[text] {
			t.Errorf("no case has %s", text)
		}
	}
}

// TestClientNames: what the pages call of the JavaScript client is in its types.
func TestClientNames(t *testing.T) {
	types := read(t, "client/broadcast.d.ts") + read(t, "client/presence.d.ts")
	called := regexp.MustCompile(`\bhub\.(\w+)`)
	n := 0
	for _, page := range pages(t) {
		if page == "docs/performance.md" { // which is about the hub in Go
			continue
		}
		for _, m := range called.FindAllStringSubmatch(read(t, page), -1) {
			n++
			if !regexp.MustCompile(fmt.Sprintf(`(?m)^\t(?:readonly )?%s\??[:(<]`, m[1])).MatchString(types) && !isGo(m[1]) {
				t.Errorf("%s: the client has no hub.%s", page, m[1])
			}
		}
	}
	if n < 10 {
		t.Errorf("only %d were found", n)
	}
}

// isGo reports whether a name is one of the Go API's, whose methods are exported.
func isGo(name string) bool { return name[0] >= 'A' && name[0] <= 'Z' }
