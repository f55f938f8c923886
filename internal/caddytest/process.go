package caddytest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/internal/subprocess"
)

// StartProcess starts Caddy as a process, and returns when it listens on the addresses. It is for tests of signals, and of
// several nodes. All other tests use Start, which is faster.
func StartProcess(t testing.TB, binary, file string, addrs ...string) (cmd *exec.Cmd, ended chan error) {
	t.Helper()
	cmd = exec.Command(binary, "run", "--config", file, "--adapter", "caddyfile")
	// The test binary is its own Caddy, so that no other program has to be built.
	cmd.Env = append(os.Environ(), AsCaddy+"=1")
	subprocess.DieWithParent(cmd) // or it would hold its ports against the next run
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended = make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	// Kill, because a test that failed may have left it in the middle of a slow shutdown.
	t.Cleanup(func() { cmd.Process.Kill() })
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		up := 0 // addresses that accept connections: the admin API does so before the servers
		for _, addr := range addrs {
			if c, err := net.Dial("tcp", addr); err == nil {
				c.Close()
				up++
			}
		}
		if up == len(addrs) {
			return cmd, ended
		}
		if time.Now().After(deadline) {
			t.Fatal("it does not start")
		}
	}
}

// Certificate makes a certificate for localhost and other names, and returns the directive that uses it. It is used instead of
// "tls internal", because there Caddy makes certificates while it starts, with a data race of its own.
func Certificate(t testing.TB, names ...string) string {
	t.Helper()
	cert, key := CertificateFiles(t, append([]string{"localhost"}, names...)...)
	return "tls " + cert + " " + key
}

// CertificateFiles makes a certificate for some names and returns the paths of its files.
func CertificateFiles(t testing.TB, names ...string) (certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "localhost"}, // curl takes no certificate without a name
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
		DNSNames:     names,
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, block := range map[string]*pem.Block{
		"cert.pem": {Type: "CERTIFICATE", Bytes: cert},
		"key.pem":  {Type: "PRIVATE KEY", Bytes: secret},
	} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
}

// AwaitAddr waits until something listens at an address.
func AwaitAddr(t testing.TB, addr string) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}
