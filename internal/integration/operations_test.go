package integration

import (
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
	"github.com/caddy-broadcast/caddy-broadcast/internal/natstest"
	"github.com/caddy-broadcast/caddy-broadcast/internal/redistest"
)

func page(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile("../../docs/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// section returns the part of docs/operations.md below a heading.
func section(t *testing.T, heading string) string {
	t.Helper()
	_, text, ok := strings.Cut(page(t, "operations.md"), "\n## "+heading+"\n")
	if !ok {
		t.Fatalf("docs/operations.md has no section %q", heading)
	}
	text, _, _ = strings.Cut(text, "\n## ")
	return text
}

// rows returns the first column of the table in a section, without its quotes.
func rows(t *testing.T, heading string) (names []string) {
	t.Helper()
	for _, m := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\|").FindAllStringSubmatch(section(t, heading), -1) {
		names = append(names, m[1])
	}
	if len(names) < 5 {
		t.Fatalf("%q has %d rows", heading, len(names))
	}
	return names
}

// source returns all code in these folders that is not of tests: Go, and the scripts for Redis.
func source(t *testing.T, roots ...string) string {
	t.Helper()
	var all strings.Builder
	for _, root := range roots {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			ext := filepath.Ext(path)
			if err != nil || d.IsDir() || ext != ".go" && ext != ".lua" || strings.HasSuffix(path, "_test.go") {
				return err
			}
			text, err := os.ReadFile(path)
			all.Write(text)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return all.String()
}

// TestOperationsLogMessages: the messages that docs/operations.md explains are those that are logged, and it explains each
// warning and error about a broker.
func TestOperationsLogMessages(t *testing.T) {
	explained, code := rows(t, "Log messages"), source(t, "../../brokers", "../../internal")
	for _, message := range explained {
		if !regexp.MustCompile(`\.(Info|Warn|Error)\("` + regexp.QuoteMeta(message) + `"`).MatchString(code) {
			t.Errorf("%q is not logged", message)
		}
	}
	for _, m := range regexp.MustCompile(`(?:l\.|^|\t)logger\(\)\.(?:Warn|Error)\("([^"]+)"`).FindAllStringSubmatch(code, -1) {
		if !slices.Contains(explained, m[1]) {
			t.Errorf("docs/operations.md does not explain %q", m[1])
		}
	}
}

// TestOperationsCommands: the commands that the pages name exist, and so do the requests to the admin API.
func TestOperationsCommands(t *testing.T) {
	code := source(t, "../../internal")
	for _, name := range []string{"operations.md", "scale.md"} {
		for _, m := range regexp.MustCompile("`caddy broadcast (\\w+)").FindAllStringSubmatch(page(t, name), -1) {
			if !regexp.MustCompile(`Use: +"` + m[1] + `\b`).MatchString(code) {
				t.Errorf("%s has the command %q", name, m[0][1:])
			}
		}
		for _, m := range regexp.MustCompile("`[A-Z]+ (/broadcast[a-z/]*)").FindAllStringSubmatch(page(t, name), -1) {
			if !strings.Contains(code, `{Pattern: "`+m[1]+`"`) {
				t.Errorf("%s has the request %q", name, m[0][1:])
			}
		}
	}
}

// TestAlerts: the rules of docs/alerts.yml are about metrics that there are with a broker, docs/operations.md says what to do
// about each, and Prometheus takes them.
func TestAlerts(t *testing.T) {
	rules := page(t, "alerts.yml")
	var names []string
	for _, m := range regexp.MustCompile(`(?m)^ +- alert: (\w+)$`).FindAllStringSubmatch(rules, -1) {
		names = append(names, m[1])
	}
	if explained := rows(t, "Alerts"); !slices.Equal(names, explained) {
		t.Errorf("docs/alerts.yml has %q, and docs/operations.md %q", names, explained)
	}
	for _, m := range regexp.MustCompile("`(Broadcast\\w+)`").FindAllStringSubmatch(page(t, "operations.md"), -1) {
		if !slices.Contains(names, m[1]) {
			t.Errorf("docs/operations.md has the alert %q", m[1])
		}
	}
	server := natstest.Start(t, "")
	s := caddytest.Start(t, `
		broadcast {
			broker nats `+server.URL()+` {
				replicas 1
			}
			redis listen `+caddytest.FreeAddr(t)+`
		}
		---
		broadcast /ws news`)
	awaitHealth(s, http.StatusNoContent)
	s.Publish("channel=news", "x")
	// The alert on epochs relies on the first one of a process being 1.
	s.ExpectMetrics("broker_epochs_total 1")
	_, metrics := s.Do("GET", s.Admin+"/metrics", "")
	for _, text := range []string{rules, page(t, "operations.md")} {
		for _, name := range regexp.MustCompile(`caddy_broadcast_\w+`).FindAllString(text, -1) {
			if !regexp.MustCompile(`(?m)^` + name + `[ {]`).MatchString(metrics) {
				t.Errorf("there is no %s", name)
			}
		}
	}
	for _, m := range regexp.MustCompile(`result=~"([^"]+)"`).FindAllStringSubmatch(rules, -1) {
		for result := range strings.SplitSeq(m[1], "|") {
			if !strings.Contains(metrics, `{result="`+result+`"}`) {
				t.Errorf("there is no result %s", result)
			}
		}
	}
	t.Run("promtool", func(t *testing.T) {
		if _, err := exec.LookPath("promtool"); err != nil {
			t.Skipf("%v: apt-get install prometheus", err) // in CI too: it is only a second opinion
		}
		for _, args := range [][]string{{"check", "rules", "../../docs/alerts.yml"}, {"test", "rules", "testdata/alerts_test.yml"}} {
			if out, err := exec.Command("promtool", args...).CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		}
	})
}

// TestRedisAccount: with the user of docs/security.md a node can do all that it does, and the user has no command that no
// node uses.
func TestRedisAccount(t *testing.T) {
	users := blocksOf(t, "security.md", "redis", 1)[0]
	code := strings.ToLower(source(t, "../../brokers/redis"))
	for _, m := range regexp.MustCompile(` \+(\w+)`).FindAllStringSubmatch(users, -1) {
		// As in redis.call('GET', in Arbitrary("WAIT", and in B().Scan().
		if !regexp.MustCompile(`call\('`+m[1]+`'|"`+m[1]+`"|\bb\(\)\.`+m[1]).MatchString(code) && m[1] != "select" {
			t.Errorf("no node uses %s", m[1])
		}
	}
	// The test itself has to ask the server.
	users = strings.Replace(users, "user default off", "user default on nopass ~* &* +@all", 1)
	for _, program := range redistest.Programs(t) {
		t.Run(program, func(t *testing.T) { testRedisAccount(t, program, users) })
	}
}

func testRedisAccount(t *testing.T, program, users string) {
	server := redistest.StartProgram(t, program, users)
	replica := redistest.StartProgram(t, program, "replicaof 127.0.0.1 "+server.Port) // for WAIT
	replica.WaitInfo("replication", "master_link_status:up")
	server.Do("CONFIG", "RESETSTAT")
	config := `
		broadcast {
			history 10 5m
			broker redis ` + server.URL() + `/1 {
				user caddy secret
				replicas 1
			}
		}
		---
		broadcast /ws news {
			join *
		}`
	s := caddytest.Start(t, config)
	awaitHealth(s, http.StatusNoContent)
	expectWorks(s)
	if denied := server.Do("ACL", "LOG"); denied != "[]" {
		t.Errorf("the user may not do all that a node does: %s", denied)
	}
}

// TestRedisConfiguration: a server takes the configuration that docs/scale.md has for it.
func TestRedisConfiguration(t *testing.T) {
	block := blocksOf(t, "scale.md", "redis", 1)[0]
	for _, program := range redistest.Programs(t) {
		t.Run(program, func(t *testing.T) {
			server := redistest.StartProgram(t, program, block)
			for line := range strings.Lines(block) {
				name, _, _ := strings.Cut(line, " ")
				if got := server.Do("CONFIG", "GET", name); strings.Contains(got, "map[]") {
					t.Errorf("there is no %s", name)
				}
			}
		})
	}
}

// TestSentinelAccount: the user that docs/security.md has for a Sentinel is enough.
func TestSentinelAccount(t *testing.T) {
	m := regexp.MustCompile("A Sentinel needs a user with `([^`]+)`").FindStringSubmatch(page(t, "security.md"))
	if m == nil {
		t.Fatal("docs/security.md has no user of Sentinels")
	}
	sentinel := redistest.StartSentinel(t, redistest.Start(t), "user caddy on >secret -@all "+m[1])
	s := caddytest.Start(t, `
		broadcast {
			broker redis redis+sentinel://`+sentinel.Addr()+`/`+redistest.Master+` {
				sentinel_user caddy secret
			}
		}
		---
		broadcast /ws news`)
	awaitHealth(s, http.StatusNoContent)
}
