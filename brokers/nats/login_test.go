package nats

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/internal/natstest"
	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"
)

// permissions is all that an account needs, with the default names.
const permissions = `permissions: {
	publish: ["bc.s.>", "$JS.API.STREAM.CREATE.BROADCAST", "$JS.API.STREAM.UPDATE.BROADCAST", "$JS.API.STREAM.INFO.BROADCAST",
		"$JS.API.STREAM.MSG.GET.BROADCAST", "$JS.API.DIRECT.GET.BROADCAST"]
	subscribe: ["bc.l.>", "_INBOX_bc.>"]
}`

// use does everything that needs a permission.
func use(t *testing.T, c Config) {
	t.Helper()
	a, b := dialTest(t, c), dialTest(t, c)
	b.open(t, "x")
	e := entry("x", "1")
	e.Key, e.Digest = [16]byte{1}, 1
	first := a.publish(t, e)[0]
	if again := b.publish(t, e)[0]; again.Seq != first.Seq || !again.Repeated {
		t.Errorf("the key was not known: %v, %v", again, first)
	}
	a.publish(t, entry("x", "2"), entry("y", "3"))
	b.await(t, "the entries", func() bool { return slices.Equal(b.data("x"), []string{"1", "2"}) })
	if es, complete, err := a.Read(t.Context(), "x", first.Seq, 10, 1000); err != nil || !complete || len(es) != 1 {
		t.Errorf("Read: %v, %v, %v", es, complete, err)
	}
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
	for name, test := range map[string]struct {
		server string
		config func(*Config)
	}{
		"user and password": {`authorization: { users: [{ user: u, password: "secret", ` + permissions + ` }] }`, func(c *Config) {
			c.User, c.Password = "u", "secret"
		}},
		"in the URL": {`authorization: { user: u, password: "secret" }`, func(c *Config) {
			c.Servers[0] = strings.Replace(c.Servers[0], "nats://", "nats://u:secret@", 1)
		}},
		"token": {`authorization: { token: "secret" }`, func(c *Config) { c.Token = "secret" }},
		"nkey":  {`authorization: { users: [{ nkey: ` + public + ` }] }`, func(c *Config) { c.NKey = file }},
	} {
		t.Run(name, func(t *testing.T) {
			c := testConfig(t, natstest.Start(t, test.server).URL(), 1)
			test.config(&c)
			use(t, c)
		})
	}
}

func TestTLS(t *testing.T) {
	dir := t.TempDir()
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, _ := x509.MarshalECPrivateKey(key)
	os.WriteFile(dir+"/cert", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}), 0o600)
	os.WriteFile(dir+"/key", pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: private}), 0o600)
	roots := x509.NewCertPool()
	parsed, _ := x509.ParseCertificate(cert)
	roots.AddCert(parsed)
	s := natstest.Start(t, fmt.Sprintf(`tls: { cert_file: %q, key_file: %q }`, dir+"/cert", dir+"/key"), natsgo.Secure(&tls.Config{RootCAs: roots}))
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
