package integration

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
)

// optionErrors are options of a route, which begin on line 3, and the error that they are.
var optionErrors = []struct {
	options string
	line    int
	want    string
}{
	{options: "chanel a", line: 3, want: "unrecognized option chanel"},
	{options: "echo on\necho off", line: 4, want: "the option echo is given twice, first on line 3"},
	{options: "publish off\nsubscribe off", line: 2, want: "publish and subscribe are both off"},
	{options: "publish off\ntransports post", line: 2, want: "the only transport is post"},
	{options: "publish maybe", line: 3, want: `publish is "maybe", must be on or off`},
	{options: "publish", line: 3, want: "wrong argument count"},
	{options: "user", line: 3, want: "wrong argument count"},
	{options: "user a b", line: 3, want: "wrong argument count"},
	{options: "channel", line: 3, want: "wrong argument count"},
	{options: "channel a a", line: 2, want: `channel "a" is named twice`},
	{options: "channel \"\"", line: 2, want: `channel "" is empty`},
	{options: "channel " + strings.Repeat("x", 256), line: 2, want: "has 256 bytes, more than 255"},
	{options: "transports websocket carrier_pigeon", line: 2, want: `transport "carrier_pigeon" is not one of`},
	{options: "transports post post", line: 2, want: `transport "post" is named twice`},
	{options: "origins https://a.*.org", line: 2, want: "* may only be used alone"},
	{options: "ping_interval soon", line: 3, want: `ping_interval is "soon", must be a duration`},
	{options: "ping_interval 0", line: 3, want: "ping_interval must be greater than 0"},
	{options: "ipv6_prefix 0", line: 3, want: "ipv6_prefix is 0, must be 1 to 128"},
	{options: "ipv6_prefix 129", line: 3, want: "ipv6_prefix is 129, must be 1 to 128"},
	{options: "ping_interval 10ms", line: 2, want: "ping_interval is 10ms, must be 1s to 1h"},
	{options: "write_timeout -1s", line: 2, want: "write_timeout is -1s"},
	{options: "max_message big", line: 3, want: `max_message: "big" is not a valid size (for example 64KiB)`},
	{options: "max_message 0", line: 3, want: "max_message must be greater than 0"},
	{options: "max_message 1GiB", line: 2, want: "max_message is 1073741824 bytes, must be 1 to 67108864"},
	{options: "max_backlog 1KiB", line: 2, want: "max_backlog is 1024 bytes, must be at least 65536"},
	{options: "max_backlog 18EiB", line: 3, want: "max_backlog:"},
	{options: "max_message 1MiB\nmax_backlog 512KiB", line: 2, want: "less than the 1048576 of max_message"},
	{options: "replay all", line: 3, want: `replay is "all", must be a whole number`},
	{options: "replay -1", line: 2, want: "replay is -1"},
	{options: "replay 1\nsubscribe off", line: 2, want: "subscribe is off, so nothing can be replayed"},
	{options: "expires 2033-05-18T03:33:20Z", line: 2, want: "expires is \"2033-05-18T03:33:20Z\", must have a placeholder"},
	{options: "expires", line: 3, want: "wrong argument count"},
	{options: "slow down", line: 2, want: `slow is "down", must be close, drop or conflate`},
	{options: "deliver_every 11s", line: 2, want: "deliver_every is 11s, must be 0 to 10s"},
	{options: "compression", line: 3, want: "must be off, on, or on <min_size>"},
	{options: "compression on lots", line: 3, want: `compression: "lots" is not a valid size`},
	{options: "compression off 1KiB", line: 3, want: "must be off"},
	{options: "ping_interval 1500ms", line: 2, want: "ping_interval is 1.5s, must be whole seconds"},
	{options: "rate", line: 3, want: "rate"},
	{options: "presence soon", line: 3, want: `presence's grace is "soon", must be a duration such as 5s, or 0`},
	{options: "presence 5s 6s", line: 3, want: "wrong argument count"},
	{options: "presence 10m", line: 2, want: "presence's grace is 10m0s, must be 0 to 5m0s"},
	{options: "presence\nsubscribe off", line: 2, want: "subscribe is off, so there is nobody who could be present"},
	{options: "presence\nmax_backlog 64KiB", line: 2, want: "must be at least 524288 with presence"},
	{options: "user u\nmember x", line: 2, want: "member has no effect without presence"},
	{options: "presence\nmember x", line: 2, want: "member needs user"},
	{options: "user u\npresence\nmember `{\"a\": `", line: 2, want: "is not JSON"},
	{options: "user u\npresence\nmember `{\"a\": {http.auth.user.id}, \"b\": \"{http.auth.user.id}\", c: 1}`", line: 2, want: "is not JSON"},
	{options: "user u\npresence\nmember `[{query.a}`", line: 2, want: "is not JSON"},
	{options: "close_on_reload yes", line: 3, want: "wrong argument count"},
	{options: "rate fast", line: 3, want: `rate is "fast", must be a positive number`},
	{options: "rate 5/d", line: 3, want: `rate is "5/d", must be a positive number, optionally per /s, /m or /h`},
	{options: "rate 0", line: 3, want: `rate is "0", must be a positive number`},
	{options: "rate 5 0", line: 3, want: `rate's burst is "0"`},
	{options: "max_connections many", line: 3, want: `max_connections is "many", must be a whole number`},
	{options: "max_connections 5 per_user 1", line: 3, want: "must be <n> [per_ip <n>]"},
	{options: "max_connections -1", line: 2, want: "max_connections is -1, must not be negative"},
	{options: "publish off\n\trate 5", line: 2, want: "publish is off, so there is no rate to limit"},
	{options: "subscribe off\n\tjoin a", line: 2, want: "subscribe is off, so clients cannot join channels"},
	{options: "subscribe off\n\ttransports sse", line: 2, want: "subscribe is off and the only transport is sse"},
	{options: "echo {\non\n}", line: 3, want: ""},
}

// TestOptionErrors: an error names the option, what is wrong with it, and the line. What only the block as a whole has
// wrong is an error of its first line.
func TestOptionErrors(t *testing.T) {
	for _, c := range optionErrors {
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
		{option: "broadcast fast", line: 2, want: "wrong argument count"},
		{option: "broadcast {\nhurry on\n}", line: 3, want: "unrecognized option hurry"},
		{option: "broadcast {\nmax_channels many\n}", line: 3, want: `max_channels is "many", must be a whole number`},
		{option: "broadcast {\nmax_channels -1\n}", line: 2, want: "max_channels is -1, must not be negative"},
		{option: "broadcast {\nmax_memory 1KiB\n}", line: 2, want: "max_memory is 1024 bytes, must be at least 1048576"},
		{option: "events {\non * broadcast a b\n}", line: 3, want: "wrong argument count"},
		{option: "broadcast {\nhistory\n}", line: 3, want: "wrong argument count"},
		{option: "broadcast {\nhistory 10 0s\n}", line: 3, want: `history's max_age is "0s", must be a duration such as 10m`},
		{option: "broadcast {\nhistory 10 20\n}", line: 3, want: `history's max_age is "20", must be a duration such as 10m`},
		{option: "broadcast {\nhistory a b\n}", line: 3, want: `"b"`},
		{option: "broadcast {\nhistory a b c d\n}", line: 3, want: "wrong argument count"},
		{option: "broadcast {\nhistory 10\nhistory 20 1m\n}", line: 4, want: "history without a pattern is given twice, first on line 3"},
		{option: "broadcast {\nhistory a* 10\nhistory a* 20\n}", line: 2, want: "history of a* is given twice"},
		{option: "broadcast {\nhistory a* -1\n}", line: 2, want: "history of a* is -1, must not be negative"},
		{option: "broadcast {\nhistory -1\n}", line: 2, want: "history is -1, must not be negative"},
		{option: "broadcast {\nhistory_bytes much\n}", line: 3, want: `history_bytes: "much" is not a valid size`},
		{option: "broadcast {\ncoalesce 2s\n}", line: 2, want: "coalesce is 2s, must be 0 to 1s"},
		{option: "broadcast {\n}\nbroadcast {\n}", line: 4, want: "the global option broadcast is given twice"},
		{option: "broadcast {\ncoalesce 0\ncoalesce 1s\n}", line: 4, want: "the option coalesce is given twice, first on line 3"},
		{option: "broadcast {\nbroker\n}", line: 3, want: "broker needs the name of a message broker"},
		{option: "broadcast {\nbroker pigeon\n}", line: 3, want: `no message broker "pigeon"; one of this project's is added by xcaddy build --with github.com/caddy-broadcast/caddy-broadcast/brokers/pigeon`},
		{option: "broadcast {\nbroker nats\n}", line: 3, want: "broker nats needs the URL of a server"},
		{option: "broadcast {\nbroker nats a {\nreplicas 0\n}\n}", line: 4, want: "replicas is 0, must be 1 to 5"},
		{option: "broadcast {\nbroker redis\n}", line: 3, want: "broker redis takes the URL of a server"},
		{option: "broadcast {\nbroker redis redis://a {\nreplicas 9\n}\n}", line: 4, want: "replicas is 9, must be 0 to 5"},
		{option: "broadcast {\nbroker nats a\nbroker nats b\n}", line: 4, want: "the option broker is given twice, first on line 3"},
		{option: "broadcast {\nnode a b\n}", line: 3, want: "wrong argument count"},
		{option: "broadcast {\nnode " + strings.Repeat("n", 256) + "\n}", line: 2, want: "the node has 256 bytes"},
		{option: "broadcast {\npartition_timeout 10ms\n}", line: 2, want: "partition_timeout is 10ms, must be 1s to 1h"},
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
