package nats

import (
	"encoding/json"
	"os"
	"path/filepath"
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

// TestDefaults: what is not given has the documented default.
func TestDefaults(t *testing.T) {
	b, err := load(t, `{"servers":["nats://a"]}`)
	if err != nil {
		t.Fatal(err)
	}
	c := b.config
	if c.Stream != "BROADCAST" || c.Prefix != "bc" || c.MaxBytes != 1<<30 || c.PublishTimeout != 5*time.Second || !c.Manage || c.Memory {
		t.Errorf("%+v", c)
	}
}

// TestPlaceholders are expanded for the connection, and stay in what Caddy shows of the configuration.
func TestPlaceholders(t *testing.T) {
	t.Setenv("TEST_NATS_HOST", "n1")
	t.Setenv("TEST_NATS_TOKEN", "s3cret{x}")
	b, err := load(t, `{"servers":["tls://{env.TEST_NATS_HOST}:4222"],"token":"{env.TEST_NATS_TOKEN}"}`)
	if err != nil {
		t.Fatal(err)
	}
	if b.config.Servers[0] != "tls://n1:4222" || b.config.Token != "s3cret{x}" {
		t.Errorf("%+v", b.config)
	}
	if shown, _ := json.Marshal(b); strings.Contains(string(shown), "s3cret") {
		t.Errorf("the secret is shown: %s", shown)
	}
}

// TestSecretRenewed: a secret in a file is read for each connection. While the file is empty, the secret is used that the
// configuration was loaded with.
func TestSecretRenewed(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	write := func(secret string) {
		if err := os.WriteFile(file, []byte(secret), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("one")
	b, err := load(t, `{"servers":["a"],"token":"{file.`+file+`}"}`)
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct{ content, want string }{{"one", "one"}, {"two\n", "two"}, {"", "one"}} {
		write(step.content)
		if _, _, token := b.config.login(); token != step.want {
			t.Errorf("with %q the token is %q, want %q", step.content, token, step.want)
		}
	}
}

// TestOptionErrors: an error names the option and its value, and no secret.
func TestOptionErrors(t *testing.T) {
	dir := t.TempDir()
	noPEM := filepath.Join(dir, "empty.pem")
	if err := os.WriteFile(noPEM, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	moduletest.OptionErrors(t, func() moduletest.Module { return new(Broker) }, map[string]string{
		`{}`:                      "no server is given",
		`{"servers":["ftp://a"]}`: `URL 1 of 1 has the scheme "ftp"`,
		`{"servers":["nats://a","nats://u:s3cret@ b"]}`:                          "URL 2 of 2 is not valid",
		`{"servers":["nats://u:s3cret%@b"]}`:                                     "URL 1 of 1 is not valid",
		`{"servers":["nats://a/b"]}`:                                             "more than a login, a host and a port",
		`{"servers":["nats://"]}`:                                                "URL 1 of 1 is not valid",
		`{"servers":["nats://a","ws://b"]}`:                                      "cannot be mixed",
		`{"servers":["nats://u:s3cret@a"],"token":"s3cret"}`:                     "has a login, and so has the option token",
		`{"servers":["a"],"stream":"a.b"}`:                                       `stream is "a.b"`,
		`{"servers":["a"],"prefix":"a>"}`:                                        `prefix is "a>"`,
		`{"servers":["a"],"replicas":6}`:                                         "replicas is 6, must be 1 to 5",
		`{"servers":["a"],"storage":"tape"}`:                                     `storage is "tape", must be file or memory`,
		`{"servers":["a"],"max_bytes":-1}`:                                       "max_bytes is -1",
		`{"servers":["a"],"max_bytes":5}`:                                        "max_bytes is 5, must be at least 1048576",
		`{"servers":["a"],"publish_timeout":"2h"}`:                               "publish_timeout is 2h0m0s, must be 100ms to 1m",
		`{"servers":["a"],"user":"u","password":"s3cret","token":"s3cret"}`:      "user and token are set: there can be one login",
		`{"servers":["a"],"user":"u"}`:                                           "user needs a password",
		`{"servers":["a"],"password":"s3cret"}`:                                  "user needs a password, and password a user",
		`{"servers":["a"],"token":"{env.TEST_NATS_NOTHING}"}`:                    "token: evaluated placeholder {env.TEST_NATS_NOTHING} is empty",
		`{"servers":["nats://u:{env.TEST_NATS_NOTHING}@a"]}`:                     "servers: evaluated placeholder {env.TEST_NATS_NOTHING} is empty",
		`{"servers":["a"],"stream":"{env.TEST_NATS_NOTHING}"}`:                   "stream: evaluated placeholder",
		`{"servers":["a"],"prefix":"{env.TEST_NATS_NOTHING}"}`:                   "prefix: evaluated placeholder",
		`{"servers":["a"],"tls":{"ca":["{env.TEST_NATS_NOTHING}"]}}`:             "ca: evaluated placeholder",
		`{"servers":["a"],"token":"a{s3cret}b"}`:                                 "token has a placeholder that Caddy does not know",
		`{"servers":["nats://u:@a"]}`:                                            "URL 1 of 1 has a user without a password",
		`{"servers":["a"],"nkey":"` + noPEM + `"}`:                               "nkey: ",
		`{"servers":["a"],"credentials":"/no/such/file"}`:                        "credentials: open /no/such/file",
		`{"servers":["a"],"nkey":"/no/such/file"}`:                               "nkey: open /no/such/file",
		`{"servers":["a"],"tls":{"ca":["/no/such/file"]}}`:                       "tls: ca: open /no/such/file",
		`{"servers":["a"],"tls":{"ca":["` + noPEM + `"]}}`:                       "has no certificate in PEM",
		`{"servers":["a"],"tls":{"cert":"a.pem"}}`:                               "cert needs a key",
		`{"servers":["a"],"tls":{"cert":"/no/such/file","key":"/no/such/file"}}`: "tls: cert: open /no/such/file",
	})
}

// TestCaddyfileErrors: an error has the line. Those of a login do not quote it.
func TestCaddyfileErrors(t *testing.T) {
	moduletest.CaddyfileErrors(t, func() caddyfile.Unmarshaler { return new(Broker) }, map[string]string{
		"nats":                                    "broker nats needs the URL of a server, such as nats://127.0.0.1:4222, at Caddyfile:1",
		"nats a {\nstreem B\n}":                   "unrecognized option streem, at Caddyfile:2",
		"nats a {\ntoken s3cret more\n}":          "token takes <token>, at Caddyfile:2",
		"nats a {\nuser u\n}":                     "Caddyfile:2",
		"nats a {\nuser u s3cret more\n}":         "Caddyfile:2",
		"nats a {\nreplicas 9\n}":                 "replicas is 9, must be 1 to 5, at Caddyfile:2",
		"nats a {\ntls {\ncert a\n}\n}":           "Caddyfile:3",
		"nats a {\ntls on\n}":                     "Caddyfile:2",
		"nats a {\ntls {\n}\ntls {\n}\n}":         "the option tls is given twice, first on line 2",
		"nats a {\npublish_timeout 0\n}":          "publish_timeout must be greater than 0",
		"nats a {\nmanage maybe\n}":               `manage is "maybe", must be on or off`,
		"nats a {\nmax_bytes lots\n}":             `max_bytes: "lots" is not a valid size`,
		"nats a {\nstream A\nstream B\n}":         "the option stream is given twice",
		"nats a {\ntls {\nca a\n}\nreplicas x\n}": `replicas is "x", must be a whole number`,
	})
}
