package redis

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
	"github.com/caddy-broadcast/caddy-broadcast/internal/redistest"
	"github.com/caddy-broadcast/caddy-broadcast/internal/servertest"
	"github.com/caddy-broadcast/caddy-broadcast/internal/sinktest"
)

// account returns a user of the server who may do no more than the log does.
func account(t *testing.T) string {
	t.Helper()
	// A pattern that is subscribed to has to be named as it is.
	rules := []string{"user caddy on >s3cret ~{bc:0}:* &{bc:0}:* -@all"}
	for _, db := range []string{"", "1:", "2:", "3:"} {
		rules = append(rules, "&{bc:0}:"+db+"c:*", "&{bc:0}:"+db+"p:*")
	}
	for _, name := range strings.Fields("hello auth client info select ping eval evalsha subscribe unsubscribe psubscribe punsubscribe publish scan wait") {
		rules = append(rules, "+"+name)
	}
	files, err := filepath.Glob("scripts/*.lua")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		script, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, call := range regexp.MustCompile(`redis\.p?call\('(\w+)'`).FindAllSubmatch(script, -1) {
			rules = append(rules, "+"+strings.ToLower(string(call[1])))
		}
	}
	return strings.Join(rules, " ")
}

// dialModule loads the module with options and connects it. What it logs is checked for secrets.
func dialModule(t *testing.T, options map[string]any) *sinktest.Node {
	t.Helper()
	text, err := json.Marshal(options)
	if err != nil {
		t.Fatal(err)
	}
	b, err := load(t, string(text))
	if err != nil {
		t.Fatal(err)
	}
	core, logged := observer.New(zap.DebugLevel)
	b.config.Logger = func() *zap.Logger { return zap.New(core) }
	n := sinktest.New(1)
	n.Log, err = b.Dial(n, broker.Options{Node: n.Number, Name: "node name"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		n.Log.Close()
		for _, e := range logged.All() {
			if line, _ := json.Marshal(e.ContextMap()); strings.Contains(e.Message+string(line), "s3cret") {
				t.Errorf("a secret is logged: %s %s", e.Message, line)
			}
		}
	})
	return n
}

// expectUp waits until the log works, and then tries all that it can do.
func expectUp(t *testing.T, n *sinktest.Node, times int) {
	t.Helper()
	l := n.Log
	n.Await(t, "the log", func() bool { return n.Repairs >= times })
	if s := l.Status(); !s.Up || s.Problem != "" || s.Server == "" || strings.Contains(s.Server, "s3cret") {
		t.Errorf("%+v", s)
	}
	opened, published, set, counted := make(chan error, 1), make(chan error, 1), make(chan error, 1), make(chan error, 1)
	l.Open([]string{"a", ""}, func(_ uint64, err error) { opened <- err })
	l.Publish([]broker.Entry{{Channel: "a", Data: []byte("x"), Key: [16]byte{1}, Digest: 1}}, func(_ []broker.Place, err error) { published <- err })
	peers := l.(broker.Peers)
	peers.Send(0, []byte("x"))
	peers.SetCounts(map[string]int{"a": 1}, func(err error) { set <- err })
	peers.Counts([]string{"a"}, func(_ []map[uint64]int, err error) { counted <- err })
	peers.Forget(2)
	for _, done := range []chan error{opened, published, set, counted} {
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(5 * time.Second):
			t.Fatalf("no answer: %+v", l.Status())
		}
	}
	if es, err := l.Last(t.Context(), "a", 10, 1000); err != nil || len(es) == 0 {
		t.Errorf("%v %v", es, err)
	}
	l.Release([]string{"a", ""})
}

func TestLogins(t *testing.T) {
	authority, port := servertest.NewAuthority(t), caddytest.FreePort(t)
	s := redistest.Start(t, "requirepass s3cret", account(t), redistest.TLS(authority, port))
	open := redistest.Start(t)
	t.Setenv("TEST_REDIS_LOGIN", "s3cret")
	encrypted := map[string]any{"ca": []string{authority.CA}, "cert": authority.Cert, "key": authority.Key}
	for name, options := range map[string]map[string]any{
		"password":               {"url": s.URL(), "password": "{env.TEST_REDIS_LOGIN}"},
		"password in the URL":    {"url": "redis://:{env.TEST_REDIS_LOGIN}@" + s.Addr()},
		"account":                {"url": s.URL(), "user": "caddy", "password": "s3cret"},
		"account in the URL":     {"url": "redis://caddy:s3cret@" + s.Addr()},
		"database":               {"url": "redis://caddy:s3cret@" + s.Addr() + "/3"},
		"socket":                 {"url": "unix://caddy:s3cret@" + s.Socket + "?db=1"},
		"nobody":                 {"url": open.URL()},
		"nobody with a database": {"url": open.URL() + "/15"},
		"TLS":                    {"url": "rediss://caddy:s3cret@127.0.0.1:" + port, "tls": encrypted},
		"TLS by option":          {"url": "redis://caddy:s3cret@127.0.0.1:" + port, "tls": encrypted},
	} {
		t.Run(name, func(t *testing.T) {
			options["prefix"] = "bc"
			n := dialModule(t, options)
			expectUp(t, n, 1)
		})
	}
}

// TestRefusedLogins: what the server refuses is said without the secret, and works as soon as the server accepts it.
func TestRefusedLogins(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t, "requirepass secret-of-server")
	s.Password = "secret-of-server"
	authority, port := servertest.NewAuthority(t), caddytest.FreePort(t)
	redistest.Start(t, redistest.TLS(authority, port))
	for name, test := range map[string]struct {
		options map[string]any
		want    string
	}{
		"nobody":         {map[string]any{"url": s.URL()}, "NOAUTH"},
		"wrong password": {map[string]any{"url": s.URL(), "password": "s3cret"}, "WRONGPASS"},
		"unknown user":   {map[string]any{"url": s.URL(), "user": "u", "password": "s3cret"}, "WRONGPASS"},
		"database":       {map[string]any{"url": "redis://:secret-of-server@" + s.Addr() + "/16"}, "DB index is out of range"},
		"no TLS":         {map[string]any{"url": "redis://127.0.0.1:" + port}, ""}, // the server only closes the connection
		"unknown CA":     {map[string]any{"url": "rediss://:s3cret@127.0.0.1:" + port}, "certificate"},
		"TLS to no TLS":  {map[string]any{"url": "rediss://:s3cret@" + s.Addr()}, "deadline exceeded"},
	} {
		t.Run(name, func(t *testing.T) {
			n := dialModule(t, test.options)
			for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) { // Status has no event
				problem := n.Log.Status().Problem
				if strings.Contains(problem, "s3cret") || strings.Contains(problem, "secret-of-server") {
					t.Fatalf("the problem has a secret: %s", problem)
				}
				if problem != "not connected yet" && problem != "" && strings.Contains(problem, test.want) {
					return
				}
				if time.Now().After(deadline) {
					t.Fatalf("the problem is %q, want %q", problem, test.want)
				}
			}
		})
	}
}

// TestPasswordChanged: a password in a file may change while the log works. It connects again with the new one.
func TestPasswordChanged(t *testing.T) {
	t.Parallel()
	file := t.TempDir() + "/password"
	write := func(file, secret string) {
		if err := os.WriteFile(file, []byte(secret), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(file, "s3cret-1")
	s := redistest.Start(t, "requirepass s3cret-1")
	s.Password = "s3cret-1"
	n := dialModule(t, map[string]any{"url": "redis://:{file." + file + "}@" + s.Addr()})
	expectUp(t, n, 1)
	s.Do("CONFIG", "SET", "requirepass", "s3cret-2")
	s.Password = "s3cret-2"
	write(file, "s3cret-2")
	s.Do("CLIENT", "KILL", "TYPE", "normal")
	expectUp(t, n, 2)
}

// TestSentinelLogins: Sentinels have a login of their own, and need not all be there.
func TestSentinelLogins(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t, account(t))
	sentinel := redistest.StartSentinel(t, s, "user s on >s3cret-of-sentinel +@all")
	n := dialModule(t, map[string]any{
		"url":           "redis+sentinel://caddy:s3cret@127.0.0.1:1," + sentinel.Addr() + "/" + redistest.Master + "/2",
		"sentinel_user": "s", "sentinel_password": "s3cret-of-sentinel",
	})
	expectUp(t, n, 1)
}
