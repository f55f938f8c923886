package queue

import (
	"encoding/json"
	"testing"
	"unicode/utf8"
)

// fuzz fuzzes the payloads of a channel, beginning with the recorded ones.
func fuzz(f *testing.F, channel string, files ...string) {
	for _, file := range files {
		for _, r := range readRecorded(f, file) {
			if len(r.Payload) < 2000 {
				f.Add(r.Payload)
			}
		}
	}
	f.Add([]byte(emitJSON(`"update"`, `[{"price": 3.5e+1, "b": {"_placeholder": true, "num": 0}}, "AP8="]`, `, "binary": true`)))
	f.Add([]byte(emitJSON(`"update"`, `["\ud83d\ude00", [null]]`, `, "binary": false`)))
	f.Fuzz(func(t *testing.T, payload []byte) { checkEvent(t, payload, channel) })
}

func FuzzPython(f *testing.F)  { fuzz(f, "socketio", "python.jsonl") }
func FuzzKombu(f *testing.F)   { fuzz(f, "/0.socketio", "python.jsonl") }
func FuzzEmitter(f *testing.F) { fuzz(f, "socket.io#/#", "emitter.jsonl") }
func FuzzRequest(f *testing.F) { fuzz(f, "socket.io-request#/#", "emitter.jsonl") }

// FuzzJSON compares what is JSON with encoding/json, which accepts more: halves of surrogate pairs, too large numbers and
// too many levels.
func FuzzJSON(f *testing.F) {
	for _, s := range []string{`{"a":1}`, `{"a":[1,-0.5e+7,"\u00e9\n",{"b":null}],"c":{}}`, `{"a":01}`, `{"a":1,}`, `{"a":[1,]}`, `{"a" 1}`, `{"a":-}`, `{"a":1.}`,
		`{"a":1e}`, `{"a":"\ud83d\ude00"}`, `{"a":"\ud83d"}`, `{"a":"\x"}`, `{"a":NaN}`, `{}{}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		last := map[string]string{}
		err := object(p, func(key []byte, v value) { last[string(key)] = string(v.raw) })
		var want map[string]json.RawMessage
		wantErr := json.Unmarshal(p, &want)
		switch {
		case err == nil && wantErr != nil:
			t.Fatalf("%q is accepted: %v", p, wantErr)
		case err == errSyntax && wantErr == nil && utf8.Valid(p) && want != nil:
			t.Fatalf("%q is refused", p)
		case err != nil:
			return
		case len(last) != len(want):
			t.Fatalf("%q has %d members, want %d", p, len(last), len(want))
		}
		for key, v := range want {
			if last[key] != string(v) {
				t.Errorf("%q is %q, want %q", key, last[key], v)
			}
		}
	})
}
