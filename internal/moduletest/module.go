// Package moduletest loads the Caddy modules of brokers in tests, and checks the errors of options.
package moduletest

import (
	"context"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

// secret is what secrets are in the options of tests. No error may have it.
const secret = "s3cret"

// Module is what Caddy loads.
type Module interface {
	caddy.Provisioner
	caddy.Validator
}

// Load loads a module as Caddy would.
func Load(t testing.TB, m Module, options string) error {
	t.Helper()
	ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()})
	t.Cleanup(cancel)
	if err := caddy.StrictUnmarshalJSON([]byte(options), m); err != nil {
		t.Fatal(err)
	}
	if err := m.Provision(ctx); err != nil {
		return err
	}
	return m.Validate()
}

// OptionErrors loads options in JSON, each of which has to be an error that contains a text.
func OptionErrors(t *testing.T, create func() Module, wants map[string]string) {
	checkErrors(t, wants, func(t *testing.T, options string) error { return Load(t, create(), options) })
}

// CaddyfileErrors parses a Caddyfile's segments, each of which has to be an error that contains a text.
func CaddyfileErrors(t *testing.T, create func() caddyfile.Unmarshaler, wants map[string]string) {
	checkErrors(t, wants, func(t *testing.T, input string) error {
		tokens, err := caddyfile.Tokenize([]byte(input), "Caddyfile")
		if err != nil {
			t.Fatal(err)
		}
		return create().UnmarshalCaddyfile(caddyfile.NewDispenser(tokens))
	})
}

func checkErrors(t *testing.T, wants map[string]string, do func(t *testing.T, input string) error) {
	for input, want := range wants {
		t.Run(input, func(t *testing.T) {
			err := do(t, input)
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Fatalf("got %v, want %s", err, want)
			}
			if strings.Contains(err.Error(), secret) {
				t.Errorf("the error has the secret: %v", err)
			}
		})
	}
}
