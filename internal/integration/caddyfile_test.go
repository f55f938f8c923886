package integration

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	broadcast "github.com/caddy-broadcast/caddy-broadcast"
	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
)

func TestCaddyfile(t *testing.T) {
	for _, c := range []struct{ config, json string }{
		{`broadcast /ws`, `{"handler":"broadcast"}`},
		{"broadcast /ws {\n}", `{"handler":"broadcast"}`},
		{`broadcast /ws news {path.1}`, `{"channels":["news","{http.request.uri.path.1}"],"handler":"broadcast"}`},
		{`broadcast /* {
			channel news user:{http.auth.user.id}
			user {http.auth.user.id}
			publish off
			subscribe on
			transports websocket post
			origins https://app.example.com *.example.org
			echo off
			greeting "hello there"
			replay 5
			ping_interval 1m
			write_timeout 1.5s
			max_message 1MB
			max_backlog 2MiB
			slow drop
			compression on 1KiB
		}`, `{"channels":["news","user:{http.auth.user.id}"],"compression":{"min_size":1024},"echo":false,"greeting":"hello there",` +
			`"handler":"broadcast","max_backlog":2097152,"max_message":1000000,"origins":["https://app.example.com","*.example.org"],` +
			`"ping_interval":60000000000,"publish":false,"replay":5,"slow":"drop","subscribe":true,"transports":["websocket","post"],` +
			`"user":"{http.auth.user.id}","write_timeout":1500000000}`},
		{"broadcast /ws {\ncompression on\n}", `{"compression":{},"handler":"broadcast"}`},
		{"broadcast /ws {\ncompression off\n}", `{"handler":"broadcast"}`},
		{"broadcast /ws {\nrate 10\nmax_connections 100\nclose_on_reload\njoin room:* {query.me}:*\n}",
			`{"close_on_reload":true,"handler":"broadcast","join":["room:*","{http.request.uri.query.me}:*"],"max_connections":100,"rate":{"messages":10}}`},
		{"broadcast /ws {\nrate 10/m 20\nmax_connections 100 per_ip 5\nipv6_prefix 56\nquery token\ntransports sse\n}",
			`{"handler":"broadcast","ipv6_prefix":56,"max_connections":100,"max_per_ip":5,"query":["token"],"rate":{"burst":20,"messages":10,"per":60000000000},"transports":["sse"]}`},
	} {
		got, err := caddytest.Adapt(":80 {\n" + c.config + "\n}")
		if err != nil {
			t.Errorf("%s: %v", c.config, err)
			continue
		}
		var v struct {
			Apps struct {
				HTTP struct {
					Servers map[string]struct {
						Routes []struct{ Handle []json.RawMessage }
					}
				}
			}
		}
		if err := json.Unmarshal(got, &v); err != nil {
			t.Fatal(err)
		}
		if h := v.Apps.HTTP.Servers["srv0"].Routes[0].Handle[0]; string(h) != c.json {
			t.Errorf("%s:\n got %s\nwant %s", c.config, h, c.json)
		}
		var cfg caddy.Config
		if err := json.Unmarshal(got, &cfg); err != nil {
			t.Fatal(err)
		}
		if err := caddy.Validate(&cfg); err != nil {
			t.Errorf("%s: %v", c.config, err)
		}
	}

	got, err := caddytest.Adapt("{\nbroadcast {\nhistory 100 10m\nhistory_bytes 1MiB\ncoalesce 5ms\nshutdown_delay 3s\nmax_connections 1000\nmax_channels 10\nmax_memory 1GiB\n}\n}\n:80 {\nbroadcast /ws\nrespond hi\n}")
	if err != nil {
		t.Fatal(err)
	}
	if want := `"broadcast":{"coalesce":5000000,"history":100,"history_max_age":600000000000,"history_bytes":1048576,"max_memory":1073741824,"max_connections":1000,"max_channels":10,"shutdown_delay":3000000000}`; !bytes.Contains(got, []byte(want)) {
		t.Errorf("%s lacks %s", got, want)
	}
	if bytes.Index(got, []byte(`"handler":"broadcast"`)) > bytes.Index(got, []byte(`"handler":"static_response"`)) {
		t.Error("broadcast is not ordered before respond")
	}

	formatted := "example.com {\n\tbroadcast /ws {\n\t\tchannel news {path.1}\n\t\tpublish off\n\t}\n}\n"
	if got := caddyfile.Format([]byte(strings.ReplaceAll(formatted, "\t", "  "))); string(got) != formatted {
		t.Errorf("fmt: %s", got)
	}
}

func TestCaddyfileErrors(t *testing.T) {
	for _, c := range []struct {
		option string
		line   int
		want   string
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
		{"origins https://a.*.org", 2, "* stands alone"},
		{"ping_interval soon", 3, `ping_interval is "soon", must be a duration`},
		{"ping_interval 0", 3, "ping_interval is 0"},
		{"ipv6_prefix 0", 3, "ipv6_prefix is 0, must be 1 to 128"},
		{"ipv6_prefix 129", 2, "ipv6_prefix is 129, must be 1 to 128"},
		{"ping_interval 10ms", 2, "ping_interval is 10ms, must be 1s to 1h"},
		{"write_timeout -1s", 2, "write_timeout is -1s"},
		{"max_message big", 3, `max_message: "big" is no size`},
		{"max_message 0", 3, "max_message: is 0"},
		{"max_message 1GiB", 2, "max_message is 1073741824 bytes, must be 1 to 67108864"},
		{"max_backlog 1KiB", 2, "max_backlog is 1024 bytes, must be at least 65536"},
		{"max_backlog 18EiB", 3, "max_backlog:"},
		{"max_message 1MiB\nmax_backlog 512KiB", 2, "less than the 1048576 of max_message"},
		{"replay all", 3, `replay is "all", must be a whole number`},
		{"replay -1", 2, "replay is -1"},
		{"replay 1\nsubscribe off", 2, "nobody to replay to"},
		{"slow down", 2, `slow is "down", must be close or drop`},
		{"compression", 3, "must be off, on, or on <min_size>"},
		{"compression on lots", 3, `compression: "lots" is no size`},
		{"compression off 1KiB", 3, "must be off"},
		{"ping_interval 1500ms", 2, "ping_interval is 1.5s, must be whole seconds"},
		{"rate", 3, "rate"},
		{"close_on_reload yes", 3, "wrong argument count"},
		{"rate fast", 3, `rate is "fast", must be a number`},
		{"rate 5/d", 3, `rate is "5/d", must be a number from 1 on, with /s, /m or /h`},
		{"rate 0", 3, `rate is "0", must be a number`},
		{"rate 5 0", 3, `rate's burst is "0"`},
		{"max_connections many", 3, `max_connections is "many", must be a whole number`},
		{"max_connections 5 per_user 1", 3, "must be <n> [per_ip <n>]"},
		{"max_connections -1", 2, "max_connections is -1, must not be negative"},
		{"publish off\n\trate 5", 2, "publish is off, so there is no rate to limit"},
		{"subscribe off\n\tjoin a", 2, "subscribe is off, so there is nobody who could join"},
		{"subscribe off\n\ttransports sse", 2, "subscribe is off and the only transport is sse"},
		{"echo {\non\n}", 3, ""},
	} {
		_, err := caddytest.Adapt(":80 {\nbroadcast /ws {\n" + c.option + "\n}\n}")
		if err == nil {
			t.Errorf("%q is taken", c.option)
			continue
		}
		if !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), fmt.Sprintf("Caddyfile:%d", c.line)) {
			t.Errorf("%q: %v; want line %d, %s", c.option, err, c.line, c.want)
		}
	}
	if _, err := caddytest.Adapt(":80 {\nbroadcast /ws a {\nchannel b\n}\n}"); err == nil || !strings.Contains(err.Error(), "named twice") || !strings.Contains(err.Error(), "Caddyfile:3") {
		t.Errorf("channels in two places: %v", err)
	}
	for config, want := range map[string]string{
		"broadcast fast":                          "Caddyfile:2",
		"broadcast {\nhurry on\n}":                "Caddyfile:3",
		"broadcast {\nmax_channels many\n}":       "Caddyfile:3",
		"broadcast {\nmax_channels -1\n}":         "Caddyfile:2",
		"broadcast {\nmax_memory 1KiB\n}":         "Caddyfile:2",
		"events {\non * broadcast a b\n}":         "Caddyfile:3",
		"broadcast {\nhistory\n}":                 "Caddyfile:3",
		"broadcast {\nhistory 10 0s\n}":           "Caddyfile:3",
		"broadcast {\nhistory -1\n}":              "Caddyfile:2",
		"broadcast {\nhistory_bytes much\n}":      "Caddyfile:3",
		"broadcast {\ncoalesce 2s\n}":             "Caddyfile:2",
		"broadcast {\n}\nbroadcast {\n}":          "Caddyfile:4",
		"broadcast {\ncoalesce 0\ncoalesce 1s\n}": "Caddyfile:4",
	} {
		if _, err := caddytest.Adapt("{\n" + config + "\n}\n:80 {\nbroadcast\n}"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v; want %s", config, err, want)
		}
	}

	// The same from JSON, where there are no lines.
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
		handler := strings.Replace(config, "{", `{"handler":"broadcast",`, 1)
		var cfg caddy.Config
		raw := `{"admin":{"disabled":true},"apps":{"http":{"servers":{"a":{"listen":[":80"],"routes":[{"match":[{"path":["/ws"]}],"handle":[` + handler + `]}]}}}}}`
		if err := json.Unmarshal([]byte(raw), &cfg); err != nil {
			t.Fatal(err)
		}
		if err := caddy.Validate(&cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want %s", config, err, want)
		}
	}
}

func FuzzCaddyfile(f *testing.F) {
	f.Add("broadcast /ws a b {\n\tchannel c\n\torigins https://*.example.com\n\tmax_message 1MiB\n}")
	f.Add("broadcast {\n\tcompression on 1KiB\n\tping_interval 1d\n\tpublish off\n\tslow drop\n}")
	f.Add("broadcast {\n\tgreeting `a\nb`\n\techo {\n\t}\n}")
	f.Fuzz(func(t *testing.T, input string) {
		tokens, err := caddyfile.Tokenize([]byte(input), "Caddyfile")
		if err != nil || len(tokens) == 0 {
			return
		}
		var h broadcast.Handler
		if err := h.UnmarshalCaddyfile(caddyfile.NewDispenser(tokens)); err != nil {
			if !strings.Contains(err.Error(), "Caddyfile:") {
				t.Fatalf("the error names no place: %v", err)
			}
			return
		}
		// What is taken survives as JSON.
		first, err := json.Marshal(h)
		if err != nil {
			t.Fatal(err)
		}
		var again broadcast.Handler
		if err := caddy.StrictUnmarshalJSON(first, &again); err != nil {
			t.Fatal(err)
		}
		if second, _ := json.Marshal(again); !bytes.Equal(first, second) {
			t.Fatalf("%s becomes %s", first, second)
		}
	})
}
