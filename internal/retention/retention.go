// Package retention has the options that say how many messages of which channels are kept, and for how long.
package retention

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/option"
	"github.com/caddy-broadcast/caddy-broadcast/internal/pattern"
)

// Rule is how much of some channels is kept.
type Rule struct {
	// A pattern of the channels' names; `*` matches any text.
	Channels string `json:"channels"`

	// How many messages each of them keeps. Default: `0`, none.
	Count int `json:"count,omitempty"`

	// How long a message is kept at most. Default: `0`, until newer messages take its place.
	MaxAge caddy.Duration `json:"max_age,omitempty"`
}

// Rules are those of a configuration. The first that matches a channel applies.
type Rules []Rule

// Keep reports whether messages of any channel are kept.
func (rs Rules) Keep() bool { return slices.ContainsFunc(rs, func(r Rule) bool { return r.Count > 0 }) }

// Hub returns the rules as the hub takes them.
func (rs Rules) Hub() (rules []hub.HistoryRule) {
	for _, r := range rs {
		rules = append(rules, hub.HistoryRule{Matches: pattern.Parse(r.Channels).Matches, Count: r.Count, Age: time.Duration(r.MaxAge)})
	}
	return rules
}

// Validate checks the options of history: those for the channels that no rule is about, and the rules.
func Validate(count int, maxAge caddy.Duration, bytes int64, rs Rules) error {
	switch {
	case count < 0:
		return fmt.Errorf("history is %d, must not be negative", count)
	case maxAge < 0:
		return fmt.Errorf("history's max_age is %s, must not be negative", time.Duration(maxAge))
	case bytes < 0:
		return fmt.Errorf("history_bytes is %d, must not be negative", bytes)
	}
	for i, r := range rs {
		switch {
		case r.Channels == "":
			return errors.New("history has a rule without a pattern of channels")
		case r.Count < 0:
			return fmt.Errorf("history of %s is %d, must not be negative", r.Channels, r.Count)
		case r.MaxAge < 0:
			return fmt.Errorf("history's max_age of %s is %s, must not be negative", r.Channels, time.Duration(r.MaxAge))
		case slices.ContainsFunc(rs[:i], func(before Rule) bool { return before.Channels == r.Channels }):
			return fmt.Errorf("history of %s is given twice", r.Channels)
		}
	}
	return nil
}

// Parse parses a line of history. A rule without a pattern is for all other channels.
func Parse(d *caddyfile.Dispenser) (r Rule, err error) {
	args := d.RemainingArgs()
	if hasPattern(args) {
		r.Channels, args = args[0], args[1:]
	}
	if len(args) != 1 && len(args) != 2 {
		return r, d.ArgErr()
	}
	if r.Count, err = option.ParseInt("history", args[0]); err != nil {
		return r, d.WrapErr(err)
	}
	if len(args) == 2 {
		age, err := caddy.ParseDuration(args[1])
		if err != nil || age <= 0 {
			return r, d.Errf("history's max_age is %q, must be a duration such as 10m", args[1])
		}
		r.MaxAge = caddy.Duration(age)
	}
	return r, nil
}

// hasPattern reports whether the first argument is a pattern. Of two arguments it is a count if it is a number: a pattern that is
// a number needs a max_age too.
func hasPattern(args []string) bool {
	if len(args) != 2 {
		return len(args) == 3
	}
	_, err := strconv.Atoi(args[0])
	return err != nil
}
