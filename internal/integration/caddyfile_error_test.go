package integration

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
)

// TestOptionErrors: an error names the option, what is wrong with it, and the line. What only the block as a whole has
// wrong is an error of its first line.
func TestOptionErrors(t *testing.T) {
	for _, c := range []struct {
		options string
		line    int
		want    string
	}{
		{"chanel a", 3, "unrecognized option chanel"},
		{"echo on\necho off", 4, "the option echo is given twice, first on line 3"},
		{"publish off\nsubscribe off", 2, "publish and subscribe are both off"},
		{"publish off\ntransports post", 2, "the only transport is post"},
		{"publish maybe", 3, `publish is "maybe", must be on or off`},
		{"publish", 3, "wrong argument count"},
		{"user", 3, "wrong argument count"},
		{"user a b", 3, "wrong argument count"},
		{"channel", 3, "wrong argument count"},
		{"channel a a", 2, `channel "a" is named twice`},
		{"channel \"\"", 2, `channel "" is empty`},
		{"channel " + strings.Repeat("x", 256), 2, "has 256 bytes, more than 255"},
		{"transports websocket carrier_pigeon", 2, `transport "carrier_pigeon" is not one of`},
		{"transports post post", 2, `transport "post" is named twice`},
		{"origins https://a.*.org", 2, "* may only be used alone"},
		{"ping_interval soon", 3, `ping_interval is "soon", must be a duration`},
		{"ping_interval 0", 3, "ping_interval must be greater than 0"},
		{"ipv6_prefix 0", 3, "ipv6_prefix is 0, must be 1 to 128"},
		{"ipv6_prefix 129", 3, "ipv6_prefix is 129, must be 1 to 128"},
		{"ping_interval 10ms", 2, "ping_interval is 10ms, must be 1s to 1h"},
		{"write_timeout -1s", 2, "write_timeout is -1s"},
		{"max_message big", 3, `max_message: "big" is not a valid size (for example 64KiB)`},
		{"max_message 0", 3, "max_message must be greater than 0"},
		{"max_message 1GiB", 2, "max_message is 1073741824 bytes, must be 1 to 67108864"},
		{"max_backlog 1KiB", 2, "max_backlog is 1024 bytes, must be at least 65536"},
		{"max_backlog 18EiB", 3, "max_backlog:"},
		{"max_message 1MiB\nmax_backlog 512KiB", 2, "less than the 1048576 of max_message"},
		{"replay all", 3, `replay is "all", must be a whole number`},
		{"replay -1", 2, "replay is -1"},
		{"replay 1\nsubscribe off", 2, "subscribe is off, so nothing can be replayed"},
		{"slow down", 2, `slow is "down", must be close or drop`},
		{"compression", 3, "must be off, on, or on <min_size>"},
		{"compression on lots", 3, `compression: "lots" is not a valid size`},
		{"compression off 1KiB", 3, "must be off"},
		{"ping_interval 1500ms", 2, "ping_interval is 1.5s, must be whole seconds"},
		{"rate", 3, "rate"},
		{"close_on_reload yes", 3, "wrong argument count"},
		{"rate fast", 3, `rate is "fast", must be a positive number`},
		{"rate 5/d", 3, `rate is "5/d", must be a positive number, optionally per /s, /m or /h`},
		{"rate 0", 3, `rate is "0", must be a positive number`},
		{"rate 5 0", 3, `rate's burst is "0"`},
		{"max_connections many", 3, `max_connections is "many", must be a whole number`},
		{"max_connections 5 per_user 1", 3, "must be <n> [per_ip <n>]"},
		{"max_connections -1", 2, "max_connections is -1, must not be negative"},
		{"publish off\n\trate 5", 2, "publish is off, so there is no rate to limit"},
		{"subscribe off\n\tjoin a", 2, "subscribe is off, so clients cannot join channels"},
		{"subscribe off\n\ttransports sse", 2, "subscribe is off and the only transport is sse"},
		{"echo {\non\n}", 3, ""},
	} {
		t.Run(c.options, func(t *testing.T) {
			wantError(t, ":80 {\nbroadcast /ws {\n"+c.options+"\n}\n}", c.line, c.want)
		})
	}
	t.Run("channels twice", func(t *testing.T) {
		wantError(t, ":80 {\nbroadcast /ws a {\nchannel b\n}\n}", 3, "channels are already given as arguments of broadcast")
	})
}

// TestGlobalOptionErrors is TestOptionErrors for the global option, and for the event handler.
func TestGlobalOptionErrors(t *testing.T) {
	for _, c := range []struct {
		option string
		line   int
		want   string
	}{
		{"broadcast fast", 2, "wrong argument count"},
		{"broadcast {\nhurry on\n}", 3, "unrecognized option hurry"},
		{"broadcast {\nmax_channels many\n}", 3, `max_channels is "many", must be a whole number`},
		{"broadcast {\nmax_channels -1\n}", 2, "max_channels is -1, must not be negative"},
		{"broadcast {\nmax_memory 1KiB\n}", 2, "max_memory is 1024 bytes, must be at least 1048576"},
		{"events {\non * broadcast a b\n}", 3, "wrong argument count"},
		{"broadcast {\nhistory\n}", 3, "wrong argument count"},
		{"broadcast {\nhistory 10 0s\n}", 3, `history's max_age is "0s", must be a duration such as 10m`},
		{"broadcast {\nhistory -1\n}", 2, "history is -1, must not be negative"},
		{"broadcast {\nhistory_bytes much\n}", 3, `history_bytes: "much" is not a valid size`},
		{"broadcast {\ncoalesce 2s\n}", 2, "coalesce is 2s, must be 0 to 1s"},
		{"broadcast {\n}\nbroadcast {\n}", 4, "the global option broadcast is given twice"},
		{"broadcast {\ncoalesce 0\ncoalesce 1s\n}", 4, "the option coalesce is given twice, first on line 3"},
	} {
		t.Run(c.option, func(t *testing.T) {
			wantError(t, "{\n"+c.option+"\n}\n:80 {\nbroadcast\n}", c.line, c.want)
		})
	}
}

// TestJSONErrors: the same from JSON, where there are no lines.
func TestJSONErrors(t *testing.T) {
	for config, want := range map[string]string{
		`{"publish":false,"subscribe":false}`: "both off",
		`{"max_backlog":1}`:                   "max_backlog is 1",
		`{"ping_interval":"-1s"}`:             "ping_interval is -1s",
		`{"origins":["://"]}`:                 "origin",
		`{"echos":true}`:                      "unknown field",
		`{"compression":{"min_size":-1}}`:     "min_size is -1",
		`{"rate":{}}`:                         "rate: messages must be at least 1",
		`{"max_per_ip":-1}`:                   "per_ip is -1",
	} {
		t.Run(config, func(t *testing.T) {
			handler := strings.Replace(config, "{", `{"handler":"broadcast",`, 1)
			raw := `{"admin":{"disabled":true},"apps":{"http":{"servers":{"a":{"listen":[":80"],"routes":[{"match":[{"path":["/ws"]}],"handle":[` + handler + `]}]}}}}}`
			var cfg caddy.Config
			if err := json.Unmarshal([]byte(raw), &cfg); err != nil {
				t.Fatal(err)
			}
			if err := caddy.Validate(&cfg); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("got %v, want %s", err, want)
			}
		})
	}
}

// wantError has a Caddyfile adapted, and an error with a text on one of its lines.
func wantError(t *testing.T, config string, line int, want string) {
	t.Helper()
	_, err := caddytest.Adapt(config)
	switch {
	case err == nil:
		t.Error("no error")
	case !strings.Contains(err.Error(), want), !strings.Contains(err.Error(), fmt.Sprintf("Caddyfile:%d", line)):
		t.Errorf("got %v; want line %d, %s", err, line, want)
	}
}
