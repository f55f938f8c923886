package integration

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
	"github.com/caddy-broadcast/caddy-broadcast/internal/natstest"
)

// blocksOf returns the blocks of a page of docs in a language, at least n of them.
func blocksOf(t *testing.T, name, language string, n int) (blocks []string) {
	t.Helper()
	for _, m := range regexp.MustCompile("(?s)\n```"+language+"\n(.*?)\n```\n").FindAllStringSubmatch(page(t, name), -1) {
		blocks = append(blocks, m[1]+"\n")
	}
	if len(blocks) < n {
		t.Fatalf("docs/%s has %d blocks of %s", name, len(blocks), language)
	}
	return blocks
}

// TestScaleBalance: with the load balancers of docs/scale.md, the requests of a room go to one node, whatever else is in
// their query, and the rooms go to all nodes.
func TestScaleBalance(t *testing.T) {
	blocks := blocksOf(t, "scale.md", "caddyfile", 4) // the first two are those of the nodes
	for name, c := range map[string]struct{ block, path string }{
		"query": {blocks[2], "/ws?room=%d&last_id=%d"},
		"path":  {blocks[3], "/rooms/%d?last_id=%d"},
	} {
		t.Run(name, func(t *testing.T) {
			site := caddytest.FreePort(t)
			config := strings.Replace(c.block, "example.com {", "http://:"+site+" {", 1)
			// The first check may find a node that does not listen yet. Then it counts as down until the next one.
			config = strings.Replace(config, "health_interval 2s", "health_interval 20ms", 1)
			for i := range 3 {
				node := caddytest.FreePort(t)
				config = strings.Replace(config, fmt.Sprintf("web%d:80", i+1), "127.0.0.1:"+node, 1)
				// The site has a name, as the nodes' site in docs/scale.md.
				config += fmt.Sprintf("http://example.com:%s {\n\trespond node%d\n}\n", node, i)
			}
			caddytest.Run(t, "{\n\tadmin off\n\tpersist_config off\n}\n"+config)
			room := 0
			for nodes := make(map[string]bool); len(nodes) < 3; room++ {
				if t.Context().Err() != nil || room == 1<<16 {
					t.Fatalf("all rooms are on %v", nodes)
				}
				nodes[nodeThatAnswers(t, "http://127.0.0.1:"+site+fmt.Sprintf(c.path, room, 0))] = true
			}
			nodes := make(map[string]bool)
			for range 40 {
				room++
				first := ""
				for attempt := range 4 {
					node := nodeThatAnswers(t, "http://127.0.0.1:"+site+fmt.Sprintf(c.path, room, attempt))
					if attempt > 0 && node != first {
						t.Fatalf("room %d is on %s and on %s", room, first, node)
					}
					first = node
				}
				nodes[first] = true
			}
			if len(nodes) != 3 {
				t.Errorf("all rooms are on %v", nodes)
			}
		})
	}
}

func nodeThatAnswers(t *testing.T, url string) string {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Host = "example.com"
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK || len(body) == 0 {
		t.Fatal(resp.Status, string(body), err)
	}
	return string(body)
}

// TestScalePermissions: with the account of docs/scale.md a node can do all that it does.
func TestScalePermissions(t *testing.T) {
	t.Setenv("NATS_PASSWORD", "secret")
	server := natstest.Start(t, blocksOf(t, "scale.md", "conf", 1)[0])
	s := caddytest.Start(t, `
		broadcast {
			history 10
			broker nats `+server.URL()+` {
				user caddy {env.NATS_PASSWORD}
				replicas 1
			}
		}
		---
		broadcast /ws news
		@healthy broadcast_healthy
		respond @healthy 200
		respond 503`)
	waitFor(t, func() bool { status, _ := s.Do("GET", s.Addr+"/", ""); return status == 200 })
	expectWorks(s)
	if log, _ := os.ReadFile(s.Log); strings.Contains(strings.ToLower(string(log)), "permission") {
		t.Errorf("the log has\n%s", log)
	}
}

// expectWorks has a node do all that it needs permissions for, after it has made the log: publish with keys and several at
// once, receive, and read what a client missed that comes from another node.
func expectWorks(s *caddytest.Server) {
	t := s.T
	t.Helper()
	before := s.Totals().ID
	for i, want := range []int{200, 200, 422} {
		status, answer := s.Post(s.Addr+"/ws", "text/plain", fmt.Sprint("first", i/2), "Idempotency-Key", "k")
		if status != want {
			t.Fatal(i, status, answer)
		}
	}
	status, answer := s.Post(s.Admin+"/broadcast/publish", "application/x-ndjson", `{"channel":"news","data":"second"}
{"channel":"news","data":"third","key":"3"}
`)
	if status != 200 {
		t.Fatal(status, answer)
	}
	_, next := s.Stream("http://" + s.Addr + "/ws?last_id=" + before)
	var got strings.Builder
	for !strings.Contains(got.String(), "third") {
		got.WriteString(next())
	}
	if text := got.String(); !strings.Contains(text, "first0") || strings.Contains(text, "event: gap") {
		t.Error(text)
	}
}

func waitFor(t *testing.T, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it does not come")
		}
	}
}
