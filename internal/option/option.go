// Package option parses the options of a Caddyfile's block. Errors name the option, what it was given, and what it takes;
// the dispenser adds the file and the line.
package option

import (
	"fmt"
	"math"
	"slices"
	"strconv"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/dustin/go-humanize"
)

// Parser parses the arguments of the option that the dispenser is at.
type Parser func(d *caddyfile.Dispenser) error

// Block parses a block of options, each of which may be given once: of two, one would be ignored, and nobody would notice. The
// name of an option may have two words. Those in repeatable may be given more than once.
func Block(d *caddyfile.Dispenser, parsers map[string]Parser, repeatable ...string) error {
	lines := make(map[string]int) // of the options so far
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		name := d.Val()
		parse, ok := parsers[name]
		if !ok && d.NextArg() {
			if parse, ok = parsers[name+" "+d.Val()]; ok {
				name += " " + d.Val()
			}
		}
		if !ok {
			return d.Errf("unrecognized option %s", name)
		}
		if line, ok := lines[name]; ok && !slices.Contains(repeatable, name) {
			return d.Errf("the option %s is given twice, first on line %d", name, line)
		}
		lines[name] = d.Line()
		if err := parse(d); err != nil {
			return err
		}
	}
	return nil
}

// At returns err with the place of a token and its text, or nil if there is no error. It is for what is wrong with a block
// as a whole, and is found when all of it was read.
func At(token caddyfile.Token, err error) error {
	if err == nil {
		return nil
	}
	// A dispenser is the only way to an error with a place in the form that Caddy's own have.
	d := caddyfile.NewDispenser([]caddyfile.Token{token})
	d.Next()
	return d.Errf("%s: %v", token.Text, err)
}

// Word parses one argument.
func Word(v *string) Parser {
	return func(d *caddyfile.Dispenser) error {
		// AllArgs and not Args, which would leave what is too much to be taken for the next option.
		if !d.AllArgs(v) {
			return d.ArgErr()
		}
		return nil
	}
}

// Words parses one argument or more.
func Words(v *[]string) Parser {
	return func(d *caddyfile.Dispenser) error {
		if *v = d.RemainingArgs(); len(*v) == 0 {
			return d.ArgErr()
		}
		return nil
	}
}

// Flag parses an option without arguments, which is set by being there.
func Flag(v *bool) Parser {
	return func(d *caddyfile.Dispenser) error {
		if d.NextArg() {
			return d.ArgErr()
		}
		*v = true
		return nil
	}
}

// OnOff parses on or off. The pointer stays nil if the option is not given, so that its default can be either.
func OnOff(v **bool) Parser {
	return one(func(name, arg string) error {
		if arg != "on" && arg != "off" {
			return fmt.Errorf("%s is %q, must be on or off", name, arg)
		}
		on := arg == "on"
		*v = &on
		return nil
	})
}

// Int parses a whole number.
func Int(v *int) Parser {
	return one(func(name, arg string) (err error) {
		*v, err = ParseInt(name, arg)
		return err
	})
}

// IntBetween parses a whole number from low to high. It is for options whose zero means that they are not given.
func IntBetween(v *int, low, high int) Parser {
	return one(func(name, arg string) error {
		n, err := ParseInt(name, arg)
		if err == nil && (n < low || n > high) {
			err = fmt.Errorf("%s is %d, must be %d to %d", name, n, low, high)
		}
		*v = n
		return err
	})
}

// Duration parses a duration. Zero is rejected, since it means that the option is not given.
func Duration(v *caddy.Duration) Parser {
	return one(func(name, arg string) (err error) {
		if *v, err = parseDuration(name, arg); err == nil && *v == 0 {
			err = fmt.Errorf("%s must be greater than 0", name)
		}
		return err
	})
}

// DurationOrZero parses a duration whose default is zero.
func DurationOrZero(v *caddy.Duration) Parser {
	return one(func(name, arg string) (err error) {
		*v, err = parseDuration(name, arg)
		return err
	})
}

// Size parses a number of bytes, with a unit or without. Zero is rejected, since it means that the option is not given.
func Size(v *int64) Parser {
	return one(func(name, arg string) (err error) {
		*v, err = ParseSize(name, arg)
		return err
	})
}

// one returns a parser of exactly one argument.
func one(parse func(name, arg string) error) Parser {
	return func(d *caddyfile.Dispenser) error {
		// The name is read first, because AllArgs moves the dispenser on to the argument.
		name := d.Val()
		var arg string
		if !d.AllArgs(&arg) {
			return d.ArgErr()
		}
		if err := parse(name, arg); err != nil {
			return d.WrapErr(err)
		}
		return nil
	}
}

// ParseInt parses a whole number that is an argument of the option called name.
// It takes negative numbers too: what an option may be, its module's Validate says, which sees JSON as well.
func ParseInt(name, arg string) (int, error) {
	n, err := strconv.Atoi(arg)
	if err != nil {
		return 0, fmt.Errorf("%s is %q, must be a whole number", name, arg)
	}
	return n, nil
}

// ParseSize parses a number of bytes that is an argument of the option called name. As in Caddy's own directives, 64KiB is
// 65,536 bytes, 64KB is 64,000, and a number without a unit is bytes.
func ParseSize(name, arg string) (int64, error) {
	n, err := humanize.ParseBytes(arg)
	switch {
	case err != nil:
		return 0, fmt.Errorf("%s: %q is not a valid size (for example 64KiB): %w", name, arg, err)
	case n == 0:
		return 0, fmt.Errorf("%s must be greater than 0", name)
	// humanize returns a uint64. Converted without this check, a very large size would become negative.
	case n > math.MaxInt64:
		return 0, fmt.Errorf("%s: %s is too large", name, arg)
	}
	return int64(n), nil
}

// parseDuration parses a duration that is an argument of the option called name. Unlike time.ParseDuration, Caddy's
// knows days, such as 1d12h.
func parseDuration(name, arg string) (caddy.Duration, error) {
	n, err := caddy.ParseDuration(arg)
	if err != nil {
		return 0, fmt.Errorf("%s is %q, must be a duration such as 10s: %w", name, arg, err)
	}
	return caddy.Duration(n), nil
}
