package redis

import (
	"encoding/json"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-broadcast/caddy-broadcast/internal/moduletest"
)

// load returns the module as Caddy would load it.
func load(t *testing.T, options string) (*Broker, error) {
	t.Helper()
	b := new(Broker)
	return b, moduletest.Load(t, b, options)
}

// loadURL returns the configuration of a URL.
func loadURL(t *testing.T, url string) (Config, error) {
	t.Helper()
	options, err := json.Marshal(map[string]string{"url": url})
	if err != nil {
		t.Fatal(err)
	}
	b, err := load(t, string(options))
	return b.config, err
}

// TestDefaults: what is not given has the documented default.
func TestDefaults(t *testing.T) {
	c, err := loadURL(t, "redis://a")
	if err != nil {
		t.Fatal(err)
	}
	if c.Prefix != "bc" || c.PublishTimeout != 5*time.Second || c.Replicas != 0 || c.Durable || c.TLS != nil || c.DB != 0 || c.Servers[0] != "a:6379" {
		t.Errorf("%+v", c)
	}
}

func TestURLs(t *testing.T) {
	t.Setenv("TEST_REDIS_HOST", "r1")
	t.Setenv("TEST_REDIS_PASSWORD", "p/@:{x}%41")
	t.Setenv("TEST_REDIS_URL", "redis://u:p%40@r1/3")
	for text, want := range map[string]Config{
		"redis://r1":                                  {Servers: []string{"r1:6379"}},
		"redis://r1:1/":                               {Servers: []string{"r1:1"}},
		"redis://u:p%40@[::1]:1/15":                   {Servers: []string{"[::1]:1"}, User: "u", Password: "p@", DB: 15},
		"redis://:p@{env.TEST_REDIS_HOST}":            {Servers: []string{"r1:6379"}, Password: "p"},
		"redis://:{env.TEST_REDIS_PASSWORD}@r1/1":     {Servers: []string{"r1:6379"}, Password: "p/@:{x}%41", DB: 1},
		"redis://u%7B:%7bx%7D@r1":                     {Servers: []string{"r1:6379"}, User: "u{", Password: "{x}"},
		"{env.TEST_REDIS_URL}":                        {Servers: []string{"r1:6379"}, User: "u", Password: "p@", DB: 3},
		"unix:///run/redis.sock":                      {Servers: []string{"/run/redis.sock"}},
		"redis+unix://u:p@/run/redis.sock?db=2":       {Servers: []string{"/run/redis.sock"}, User: "u", Password: "p", DB: 2},
		"redis+sentinel://s1,s2:1/m":                  {Servers: []string{"s1:26379", "s2:1"}, Master: "m"},
		"redis+sentinel://u:p@s1:1,s2/m/4":            {Servers: []string{"s1:1", "s2:26379"}, Master: "m", DB: 4, User: "u", Password: "p"},
		"redis+cluster://:{env.TEST_REDIS_HOST}@a,b/": {Servers: []string{"a:6379", "b:6379"}, Cluster: true, Password: "r1"},
	} {
		c, err := loadURL(t, text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if !slices.Equal(c.Servers, want.Servers) || c.Master != want.Master || c.Cluster != want.Cluster || c.DB != want.DB ||
			c.User != want.User || c.Password != want.Password || c.TLS != nil {
			t.Errorf("%s is %v %+v", text, c.Servers, c)
		}
		if user, password := c.Login(); user != want.User || password != want.Password {
			t.Errorf("%s logs in as %q with %q", text, user, password)
		}
	}
	for _, text := range []string{"rediss://a", "rediss+sentinel://a/m", "rediss+cluster://a"} {
		if c, err := loadURL(t, text); err != nil || c.TLS == nil {
			t.Errorf("%s: %v, %v", text, c.TLS, err)
		}
	}
}

// TestPasswordBytes: a password may have every byte, if it is percent-encoded.
func TestPasswordBytes(t *testing.T) {
	for b := range 256 {
		password := "a" + string([]byte{byte(b)}) + "b"
		c, err := loadURL(t, "redis://:"+url.QueryEscape(strings.ReplaceAll(password, " ", "x"))+"@h")
		if err != nil || c.Password != strings.ReplaceAll(password, " ", "x") {
			t.Errorf("%q: %q, %v", password, c.Password, err)
		}
	}
}

// TestPlaceholders are expanded for the connection, and stay in what Caddy shows of the configuration.
func TestPlaceholders(t *testing.T) {
	t.Setenv("TEST_REDIS_PASSWORD", "s3cret{x}")
	b, err := load(t, `{"url":"redis+sentinel://a/m","user":"u","password":"{env.TEST_REDIS_PASSWORD}","sentinel_password":"{env.TEST_REDIS_PASSWORD}"}`)
	if err != nil {
		t.Fatal(err)
	}
	if c := b.config; c.User != "u" || c.Password != "s3cret{x}" || c.SentinelPassword != "s3cret{x}" || c.SentinelUser != "" {
		t.Errorf("%+v", c)
	}
	if shown, _ := json.Marshal(b); strings.Contains(string(shown), "s3cret") {
		t.Errorf("the secret is shown: %s", shown)
	}
}

// TestSecretRenewed: a secret in a file is read for each connection. While the file is empty, the secret is used that the
// configuration was loaded with.
func TestSecretRenewed(t *testing.T) {
	file := filepath.Join(t.TempDir(), "password")
	write := func(secret string) {
		if err := os.WriteFile(file, []byte(secret), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, options := range []string{`{"url":"redis://a","password":"{file.` + file + `}"}`, `{"url":"redis://:{file.` + file + `}@a"}`} {
		write("one")
		b, err := load(t, options)
		if err != nil {
			t.Fatal(err)
		}
		for _, step := range []struct{ content, want string }{{"one", "one"}, {"two/\n", "two/"}, {"", "one"}} {
			write(step.content)
			if _, password := b.config.Login(); password != step.want {
				t.Errorf("%s: with %q the password is %q, want %q", options, step.content, password, step.want)
			}
		}
	}
}

// TestOptionErrors: an error names the option and its value, and no secret.
func TestOptionErrors(t *testing.T) {
	moduletest.OptionErrors(t, func() moduletest.Module { return new(Broker) }, map[string]string{
		`{}`:                                                 "no url is given",
		`{"url":"redis-host"}`:                               "url: it is not valid",
		`{"url":"s3cret"}`:                                   "url: it is not valid",
		`{"url":"s3cret://a"}`:                               "has a scheme that is none of redis, ",
		`{"url":"redisx://a"}`:                               "has a scheme that is none of redis, ",
		`{"url":"rediss+unix:///a"}`:                         "has a scheme that is none of redis, ",
		`{"url":"redis://"}`:                                 "url: it is not valid",
		`{"url":"redis://:s3cret@"}`:                         "url: it is not valid",
		`{"url":"redis://u:s3cret%@b"}`:                      "need percent-encoding",
		`{"url":"redis://:a/s3cret@b"}`:                      "url: it is not valid",
		`{"url":"redis://s3cret@b"}`:                         "has a user without a password; a password alone is :password@",
		`{"url":"redis://a,b"}`:                              "has several servers, which only redis+sentinel and redis+cluster can have",
		`{"url":"redis://a/s3cret"}`:                         "where the number of a database is expected",
		`{"url":"redis://a/-1"}`:                             "where the number of a database is expected",
		`{"url":"redis://a?db=1"}`:                           "has more than a login, a host, a port and a database",
		`{"url":"redis+sentinel://a"}`:                       "lacks the name of the master",
		`{"url":"redis+sentinel://a/m/x"}`:                   "where the number of a database is expected",
		`{"url":"redis+cluster://a/1"}`:                      "a Redis Cluster has only 0",
		`{"url":"unix://a"}`:                                 "such as unix:///run/redis/redis.sock",
		`{"url":"unix:///a?x=1"}`:                            "has more than a login, a path and db",
		`{"url":"unix:///a","tls":{}}`:                       "tls is given, but the url is of a unix socket",
		`{"url":"redis://u:s3cret@a","password":"s3cret"}`:   "the url has a login, and so have the options",
		`{"url":"redis://a","prefix":"a{b}"}`:                "prefix has a placeholder that Caddy does not know",
		`{"url":"redis://a","prefix":"a b"}`:                 `prefix is "a b", must be`,
		`{"url":"redis://a","replicas":6}`:                   "replicas is 6, must be 0 to 5",
		`{"url":"redis://a","publish_timeout":"2h"}`:         "publish_timeout is 2h0m0s, must be 100ms to 1m",
		`{"url":"redis://a","user":"u"}`:                     "user needs a password",
		`{"url":"redis+sentinel://a/m","sentinel_user":"u"}`: "sentinel_user needs a sentinel_password",
		`{"url":"redis://a","sentinel_password":"s3cret"}`:   "the url is not of Sentinels",
		`{"url":"redis+sentinel://a/m","durable":true}`:      "a replica that takes over may lack the last messages: it cannot be used with Sentinels",
		`{"url":"redis+cluster://a","durable":true}`:         "it cannot be used with a Redis Cluster",
		`{"url":"redis://a","durable":true,"replicas":1}`:    "it cannot be used with the option replicas",
		`{"url":"redis://:{env.TEST_REDIS_NOTHING}@a"}`:      "url: evaluated placeholder {env.TEST_REDIS_NOTHING} is empty",
		`{"url":"redis://{env.TEST_REDIS_NOTHING}"}`:         "url: evaluated placeholder {env.TEST_REDIS_NOTHING} is empty",
		`{"url":"redis://a","password":"{env.NO_SUCH}"}`:     "password: evaluated placeholder",
		`{"url":"redis://a","password":"a{s3cret}b"}`:        "password has a placeholder that Caddy does not know",
		`{"url":"redis://:a{s3cret}b@a"}`:                    "url has a placeholder that Caddy does not know",
		`{"url":"rediss://a","tls":{"ca":["/no/such"]}}`:     "tls: ca: open /no/such",
	})
}

// TestCaddyfileErrors: an error has the line. Those of a login do not quote it.
func TestCaddyfileErrors(t *testing.T) {
	moduletest.CaddyfileErrors(t, func() caddyfile.Unmarshaler { return new(Broker) }, map[string]string{
		"redis":                              "broker redis takes the URL of a server, such as redis://127.0.0.1:6379, at Caddyfile:1",
		"redis a b":                          "broker redis takes the URL of a server",
		"redis a {\nprefixx B\n}":            "unrecognized option prefixx, at Caddyfile:2",
		"redis a {\nuser u\n}":               "user takes <name> <password>, at Caddyfile:2",
		"redis a {\npassword s3cret more\n}": "password takes <password>, at Caddyfile:2",
		"redis a {\npassword s3cret\nuser u s3cret\n}": "user and password are given, and both have a password, at Caddyfile:3",
		"redis a {\nuser u s3cret\npassword s3cret\n}": "password and user are given, and both have a password, at Caddyfile:3",
		"redis a {\nsentinel_password s3cret more\n}":  "sentinel_password takes <password>, at Caddyfile:2",
		"redis a {\nreplicas 9\n}":                     "replicas is 9, must be 0 to 5, at Caddyfile:2",
		"redis a {\ndurable yes\n}":                    "Caddyfile:2",
		"redis a {\ntls {\ncert a\n}\n}":               "Caddyfile:3",
		"redis a {\npublish_timeout 0\n}":              "publish_timeout must be greater than 0",
		"redis a {\ndurable\ndurable\n}":               "the option durable is given twice, first on line 2",
		"redis a {\ntls {\nca a\n}\nreplicas x\n}":     `replicas is "x", must be a whole number`,
	})
}
