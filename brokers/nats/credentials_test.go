package nats

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
	"github.com/caddy-broadcast/caddy-broadcast/internal/natstest"
	"github.com/caddy-broadcast/caddy-broadcast/internal/sinktest"
	"github.com/nats-io/jwt/v2"
	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"
)

// keyPair returns a pair of keys, and the public one.
func keyPair(t *testing.T, create func() (nkeys.KeyPair, error)) (pair nkeys.KeyPair, public string) {
	t.Helper()
	pair, err := create()
	if err == nil {
		public, err = pair.PublicKey()
	}
	if err != nil {
		t.Fatal(err)
	}
	return pair, public
}

// signed encodes claims.
func signed(t *testing.T, claims jwt.Claims, by nkeys.KeyPair) string {
	t.Helper()
	token, err := claims.Encode(by)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// TestCredentials logs in with a credentials file, as accounts of NATS by JWT have it, with the permissions of the documentation.
func TestCredentials(t *testing.T) {
	operator, operatorKey := keyPair(t, nkeys.CreateOperator)
	_, systemKey := keyPair(t, nkeys.CreateAccount)
	account, accountKey := keyPair(t, nkeys.CreateAccount)
	user, userKey := keyPair(t, nkeys.CreateUser)
	operatorClaims := jwt.NewOperatorClaims(operatorKey)
	operatorClaims.SystemAccount = systemKey
	accountClaims := jwt.NewAccountClaims(accountKey)
	accountClaims.Limits.JetStreamLimits = jwt.JetStreamLimits{MemoryStorage: -1, DiskStorage: -1, Streams: -1, Consumer: -1}
	userClaims := jwt.NewUserClaims(userKey)
	userClaims.Pub.Allow.Add(documentedSubjects(t, "publish")...)
	userClaims.Sub.Allow.Add(documentedSubjects(t, "subscribe")...)
	credentials := func(claims jwt.Claims) string {
		seed, err := user.Seed()
		if err != nil {
			t.Fatal(err)
		}
		content, err := jwt.FormatUserConfig(signed(t, claims, account), seed)
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(t.TempDir(), "creds")
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	anyone := credentials(jwt.NewUserClaims(userKey))
	s := natstest.Start(t, fmt.Sprintf("operator: %s\nsystem_account: %s\nresolver: MEMORY\nresolver_preload: { %s: %s, %s: %s }\n",
		signed(t, operatorClaims, operator), systemKey,
		systemKey, signed(t, jwt.NewAccountClaims(systemKey), operator), accountKey, signed(t, accountClaims, operator)), natsgo.UserCredentials(anyone))
	c := testConfig(t, s.URL(), 1)
	c.Credentials = credentials(userClaims)
	use(t, c)
	c.Credentials = filepath.Join(t.TempDir(), "none")
	if _, err := Dial(c, sinktest.New(1), broker.Options{}); err == nil {
		t.Error("a file that is not there is accepted")
	}
}

// A password that is changed on the server, and back, is no reason to restart Caddy.
func TestPasswordChanged(t *testing.T) {
	dir := t.TempDir()
	set := func(password string) {
		if err := os.WriteFile(dir+"/login", []byte(fmt.Sprintf(`authorization: { user: u, password: %q }`, password)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	set("secret")
	s := natstest.Start(t, fmt.Sprintf("include \"../%s/login\"\n", filepath.Base(dir)), natsgo.UserInfo("u", "secret"))
	c := testConfig(t, s.URL(), 1)
	c.User, c.Password = "u", "secret"
	n := dialTest(t, c)
	n.MustOpen(t, "a")
	s.Kill()
	set("other")
	s.Run()
	n.awaitProblem(t, "uthoriz")
	s.Kill()
	set("secret")
	s.Run()
	n.Await(t, "repair", func() bool { return n.Repairs == 2 && !n.Down })
	n.MustPublish(t, entry("a", "1"))
	n.Await(t, "the entry", func() bool { return len(n.data("a")) == 1 })
	if len(n.Epochs) != 1 || len(n.Missing) > 0 {
		t.Errorf("epochs %v, lost %v", n.Epochs, n.Missing)
	}
}
