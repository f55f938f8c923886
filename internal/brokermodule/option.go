// Package brokermodule is what the Caddy modules of message brokers have in common: options with placeholders and secrets, and
// those of TLS.
package brokermodule

import (
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-broadcast/caddy-broadcast/internal/option"
)

// Expansion expands placeholders, and keeps the first error. An empty placeholder is an error. A name would otherwise silently
// become the default one, which is another log. Without a login the server would refuse the connection, with a less helpful
// message.
type Expansion struct{ Err error }

// Expand returns an option's text with its placeholders replaced.
func (x *Expansion) Expand(option, text string) string {
	text, err := caddy.NewReplacer().ReplaceOrErr(text, true, true)
	switch {
	case err == nil || x.Err != nil:
	case strings.HasSuffix(err.Error(), "is empty"): // it quotes the placeholder
		x.Err = fmt.Errorf("%s: %w: is it set?", option, err)
	default: // it may be a password that has braces, so it is not quoted
		x.Err = fmt.Errorf(`%s has a placeholder that Caddy does not know; write \{ for a brace`, option)
	}
	return text
}

// Renewed returns a function that expands secrets again whenever it is called: one in a file may have changed, and a reload keeps
// the connection. If that fails, because the file is just being written, it returns what they were at first.
func Renewed[T any](first T, expand func(*Expansion) T) func() T {
	return func() T {
		var now Expansion
		if secrets := expand(&now); now.Err == nil {
			return secrets
		}
		return first
	}
}

// name is what the parts of a log's name may be. It is text that needs no quoting in any broker, and a file's name on every
// system.
var name = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

// CheckName checks a part of a log's name.
func CheckName(option, text string) error {
	if !name.MatchString(text) {
		return fmt.Errorf("%s is %q, must be 1 to 64 letters, digits, _ and -", option, text)
	}
	return nil
}

// CheckPublishTimeout checks the option publish_timeout, of which 0 means that it is not given.
func CheckPublishTimeout(d caddy.Duration) error {
	if timeout := time.Duration(d); timeout != 0 && (timeout < 100*time.Millisecond || timeout > time.Minute) {
		return fmt.Errorf("publish_timeout is %s, must be 100ms to 1m", timeout)
	}
	return nil
}

// Args parses as many arguments as there are targets. Errors do not quote them, as Caddy's would: one may be a secret.
func Args(usage string, targets ...*string) option.Parser {
	return func(d *caddyfile.Dispenser) error {
		name := d.Val()
		if !d.AllArgs(targets...) {
			return d.Errf("%s takes %s", name, usage)
		}
		return nil
	}
}

// Login returns a parser of one of two options that both have a password. It rejects an option that comes second.
func Login(other string, password *string, parse option.Parser) option.Parser {
	return func(d *caddyfile.Dispenser) error {
		if *password != "" {
			return d.Errf("%s and %s are given, and both have a password", d.Val(), other)
		}
		return parse(d)
	}
}
