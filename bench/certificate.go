//go:build linux

package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"time"
)

// certificate returns files with a certificate and its key for the peers, once made. Like Caddy's own it is of P-256, whose
// handshakes cost least.
func certificate(dir string) (cert, key string, err error) {
	cert, key = filepath.Join(dir, "peer.pem"), filepath.Join(dir, "peer.key")
	if _, err := os.Stat(key); err == nil {
		return cert, key, nil
	}
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", "", err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"localhost"}, NotAfter: time.Now().Add(24 * time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		return "", "", err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return "", "", err
	}
	if err := os.WriteFile(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		return "", "", err
	}
	return cert, key, os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), 0o600)
}

// startGorilla starts the hub of gorilla/websocket, with and without TLS.
func startGorilla(dir string, port int) (*server, error) {
	cert, key, err := certificate(dir)
	if err != nil {
		return nil, err
	}
	s, err := startGo("gorilla", "hub", address(port+2), cert, key)(dir, port)
	if err == nil {
		s.tlsAddr = address(port + 2)
	}
	return s, err
}
