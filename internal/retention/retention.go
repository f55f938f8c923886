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

// Options are those of the app `broadcast`.
type Options struct {
	// How many messages each channel keeps. Clients that were disconnected resume from these, and new ones get the last of
	// them with `replay`. Without history, each client that reconnects is notified of a gap if there were messages
	// meanwhile. Default: `0`, none.
	History int `json:"history,omitempty"`

	// How long a message is kept at most. Set it if old messages should not be readable, or if clients do not return after
	// that long anyway. Default: `0`, until newer messages take its place.
	HistoryMaxAge caddy.Duration `json:"history_max_age,omitempty"`

	// How many messages some channels keep, and for how long, by patterns of their names. The first pattern that matches a
	// channel applies; `history` and `history_max_age` apply to all others. Set it to keep more of some channels than of
	// others, or nothing: cursors and typing indicators need no history. Default: none.
	HistoryRules Rules `json:"history_rules,omitempty"`

	// Whether a clean exit saves the history in Caddy's storage, and the next start restores it, so that clients resume across
	// a restart. The file has positions, kept messages, and idempotency keys. It is used once: after a crash, clients are
	// notified of the gap. It is not used with a `broker`, or if no messages are kept. Turn it off if messages must not be on
	// disk, or if several processes with the same storage run at once. Default: `true`.
	HistoryFile *bool `json:"history_file,omitempty"`

	// How many bytes the kept messages of all channels may take together. Beyond it, the oldest messages are dropped first,
	// whatever their channel. A message counts as its data and about 256 bytes. Default: `67108864` (64 MiB).
	HistoryBytes int64 `json:"history_bytes,omitempty"`
}

// Keeps reports whether messages of any channel are kept.
func (o *Options) Keeps() bool {
	return o.History > 0 || slices.ContainsFunc(o.HistoryRules, func(r Rule) bool { return r.Count > 0 })
}

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

// Hub returns the rules as the hub takes them.
func (rs Rules) Hub() (rules []hub.HistoryRule) {
	for _, r := range rs {
		rules = append(rules, hub.HistoryRule{Matches: pattern.Parse(r.Channels).Matches, Count: r.Count, Age: time.Duration(r.MaxAge)})
	}
	return rules
}

// Validate checks the options.
func (o *Options) Validate() error {
	switch {
	case o.History < 0:
		return fmt.Errorf("history is %d, must not be negative", o.History)
	case o.HistoryMaxAge < 0:
		return fmt.Errorf("history's max_age is %s, must not be negative", time.Duration(o.HistoryMaxAge))
	case o.HistoryBytes < 0:
		return fmt.Errorf("history_bytes is %d, must not be negative", o.HistoryBytes)
	}
	rs := o.HistoryRules
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
