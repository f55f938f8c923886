package brokermodule

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-broadcast/caddy-broadcast/internal/option"
)

// TLS is how the connection to the servers is encrypted.
type TLS struct {
	// Files with the certificates of authorities that the servers' certificates may come from, in PEM. Default: those of the
	// system.
	CA []string `json:"ca,omitempty"`

	// A file with this process's certificate, in PEM, if the servers ask for one. It is read for each connection, so that it
	// may be renewed. Default: none.
	Cert string `json:"cert,omitempty"`

	// The file with the key of `cert`, in PEM. Default: none.
	Key string `json:"key,omitempty"`

	// The name in the servers' certificates, if it is not that of the URL. Default: the host of the URL.
	ServerName string `json:"server_name,omitempty"`
}

// Config expands placeholders and reads the files.
func (t *TLS) Config(x *Expansion) (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: x.Expand("server_name", t.ServerName)}
	ca := make([]string, len(t.CA))
	for i, name := range t.CA {
		ca[i] = x.Expand("ca", name)
	}
	cert, key := x.Expand("cert", t.Cert), x.Expand("key", t.Key)
	if x.Err != nil {
		return nil, x.Err
	}
	for _, name := range ca {
		if c.RootCAs == nil {
			c.RootCAs = x509.NewCertPool()
		}
		pem, err := os.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("ca: %w", err)
		}
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("ca: %s has no certificate in PEM", name)
		}
	}
	if (cert == "") != (key == "") {
		return nil, errors.New("cert needs a key, and key a cert")
	}
	if cert == "" {
		return c, nil
	}
	load := func() (*tls.Certificate, error) {
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			return nil, fmt.Errorf("cert: %w", err)
		}
		return &pair, nil
	}
	c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return load() }
	_, err := load()
	return c, err
}

// ParseTLS parses a block of the options into t, which stays nil if there is none.
func ParseTLS(t **TLS) option.Parser {
	return func(d *caddyfile.Dispenser) error {
		d = d.NewFromNextSegment()
		d.Next()
		if d.NextArg() {
			return d.ArgErr()
		}
		*t = new(TLS)
		return option.Block(d, map[string]option.Parser{
			"ca":          option.Words(&(*t).CA),
			"cert":        Args("<file> <key>", &(*t).Cert, &(*t).Key),
			"server_name": option.Word(&(*t).ServerName),
		})
	}
}
