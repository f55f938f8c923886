package nats

import (
	"crypto/tls"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/internal/natstest"
	"github.com/caddy-broadcast/caddy-broadcast/internal/servertest"
	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// documentation reads a page of docs.
func documentation(t *testing.T, page string) string {
	t.Helper()
	p, err := os.ReadFile("../../docs/" + page)
	if err != nil {
		t.Fatal(err)
	}
	return string(p)
}

// documentedSubjects returns what docs/security.md says that an account publishes, or subscribes to.
func documentedSubjects(t *testing.T, what string) (subjects []string) {
	t.Helper()
	row := regexp.MustCompile(`(?m)^\| ` + what + ` \| (.*) \|$`).FindStringSubmatch(documentation(t, "security.md"))
	if row == nil {
		t.Fatalf("docs/security.md has no row for %s", what)
	}
	for _, quoted := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(row[1], -1) {
		before, rest, several := strings.Cut(quoted[1], "{")
		if !several {
			subjects = append(subjects, before)
			continue
		}
		choices, after, _ := strings.Cut(rest, "}")
		for choice := range strings.SplitSeq(choices, ",") {
			subjects = append(subjects, before+choice+after)
		}
	}
	return subjects
}

// permissions is all that an account needs, as docs/security.md has it.
func permissions(t *testing.T) string {
	list := func(what string) string { return `["` + strings.Join(documentedSubjects(t, what), `", "`) + `"]` }
	return "permissions: { publish: " + list("publish") + ", subscribe: " + list("subscribe") + " }"
}

// TestPermissionsAreUsed: the documentation asks for no more, and no less, than what is used, also where a fault has to
// come first: use does not lose what is stored.
func TestPermissionsAreUsed(t *testing.T) {
	used := map[string]bool{"bc.s.>": true, "bc.q.>": true, "bc.n.>": true}
	files, _ := filepath.Glob("*.go")
	call := regexp.MustCompile(`"(?:\$JS\.API\.)?((?:STREAM|DIRECT|CONSUMER)\.[A-Z.]+)\."`)
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		stream := "BROADCAST"
		if file == "counted.go" { // the file about the other stream
			stream = "BROADCAST_COUNTS"
		}
		for _, method := range call.FindAllSubmatch(source, -1) {
			used["$JS.API."+string(method[1])+"."+stream] = true
		}
	}
	want := slices.Sorted(maps.Keys(used))
	if got := slices.Sorted(slices.Values(documentedSubjects(t, "publish"))); !slices.Equal(got, want) {
		t.Errorf("docs/security.md has %q, but %q are used", got, want)
	}
	want = []string{"$JS.EVENT.ADVISORY.STREAM.LEADER_ELECTED.BROADCAST", "_INBOX_bc.>", "bc.l.>", "bc.q.>"}
	if got := slices.Sorted(slices.Values(documentedSubjects(t, "subscribe"))); !slices.Equal(got, want) {
		t.Errorf("docs/security.md has %q, but %q are subscribed to", got, want)
	}
}

// use does everything that needs a permission.
func use(t *testing.T, c Config) {
	t.Helper()
	a, b := dialTest(t, c), dialTest(t, c)
	b.MustOpen(t, "x")
	e := entry("x", "1")
	e.Key, e.Digest = [16]byte{1}, 1
	first := a.MustPublish(t, e)[0]
	if again := b.MustPublish(t, e)[0]; again.Seq != first.Seq || !again.Repeated {
		t.Errorf("the key was not known: %v, %v", again, first)
	}
	a.MustPublish(t, entry("x", "2"), entry("y", "3"))
	b.Await(t, "the entries", func() bool { return slices.Equal(b.data("x"), []string{"1", "2"}) })
	if es, complete, err := a.Read(t.Context(), "x", first.Seq, 10, 1000); err != nil || !complete || len(es) != 1 {
		t.Errorf("Read: %v, %v, %v", es, complete, err)
	}
	usePeers(t, a, b)
	for _, n := range []*node{a, b} {
		if s := n.Status(); !s.Up || s.Problem != "" || strings.Contains(s.Server, "secret") {
			t.Errorf("status: %+v", s)
		}
	}
}

func TestLogins(t *testing.T) {
	key, _ := nkeys.CreateUser()
	public, _ := key.PublicKey()
	seed, _ := key.Seed()
	file := filepath.Join(t.TempDir(), "seed")
	os.WriteFile(file, seed, 0o600)
	_, accounts, _ := strings.Cut(documentation(t, "scale.md"), "```conf\naccounts {")
	accounts, _, found := strings.Cut(accounts, "\n```")
	if !found {
		t.Fatal("docs/scale.md has no account")
	}
	accounts = strings.ReplaceAll("accounts {"+accounts, "$NATS_PASSWORD", "secret")
	for name, test := range map[string]struct {
		server string
		config func(*Config)
	}{
		"user and password": {`authorization: { users: [{ user: u, password: "secret", ` + permissions(t) + ` }] }`, func(c *Config) {
			c.User, c.Password = "u", "secret"
		}},
		"the account of scale.md": {accounts, func(c *Config) { c.User, c.Password = "caddy", "secret" }},
		"in the URL": {`authorization: { user: u, password: "secret" }`, func(c *Config) {
			c.Servers[0] = strings.Replace(c.Servers[0], "nats://", "nats://u:secret@", 1)
		}},
		"a token in the URL": {`authorization: { token: "secret" }`, func(c *Config) {
			c.Servers[0] = strings.Replace(c.Servers[0], "nats://", "nats://secret@", 1)
		}},
		"token": {`authorization: { token: "secret" }`, func(c *Config) { c.Token = "secret" }},
		"nkey":  {`authorization: { users: [{ nkey: ` + public + ` }] }`, func(c *Config) { c.NKey = file }},
	} {
		t.Run(name, func(t *testing.T) {
			c := testConfig(t, natstest.Start(t, test.server).URL(), 1)
			test.config(&c)
			core, logged := observer.New(zap.ErrorLevel)
			c.Logger = func() *zap.Logger { return zap.New(core) }
			use(t, c)
			for _, e := range logged.All() {
				t.Errorf("%s: %v", e.Message, e.ContextMap())
			}
		})
	}
}

func TestTLS(t *testing.T) {
	a := servertest.NewAuthority(t)
	roots := a.Pool(t)
	s := natstest.Start(t, fmt.Sprintf(`tls: { cert_file: %q, key_file: %q }`, a.Cert, a.Key), natsgo.Secure(&tls.Config{RootCAs: roots}))
	c := testConfig(t, s.URL(), 1)
	c.TLS = &tls.Config{RootCAs: roots}
	use(t, c)
}

// A stream that somebody else made is refused, and the error says why.
func TestStreamDiffers(t *testing.T) {
	s := natstest.Start(t, "")
	conn, err := natsgo.Connect(s.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	js, _ := conn.JetStream()
	c := testConfig(t, s.URL(), 1)
	c.Manage = false
	problem := func(config Config, want ...string) {
		t.Helper()
		n := dialBroken(t, config, keepAll)
		defer n.Close()
		deadline := time.Now().Add(patience)
		for {
			text := n.Status().Problem
			missing := slices.ContainsFunc(want, func(w string) bool { return !strings.Contains(text, w) })
			if !missing {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("problem %q, want %q", text, want)
			}
			time.Sleep(time.Millisecond) // Status has no event
		}
	}
	problem(c, "does not exist", "manage")
	if _, err := js.AddStream(&natsgo.StreamConfig{Name: "BROADCAST", Subjects: []string{"bc.s.>"}, MaxAge: time.Minute}); err != nil {
		t.Fatal(err)
	}
	problem(c, "republish", "allow_direct", "allow_atomic", "max_age")
	c.Manage, c.Memory = true, true
	problem(c, "storage is file")
	c = testConfig(t, s.URL(), 0)
	c.Stream, c.Prefix = "OTHER", "other"
	problem(c, "replicas 1")
}
