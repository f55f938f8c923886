package envelope

import (
	"bytes"
	"math"
	"reflect"
	"strings"
	"testing"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
)

func TestEnvelope(t *testing.T) {
	for _, e := range []broker.Entry{
		{Data: []byte{}},
		{Kind: 255, Data: []byte("x"), Node: math.MaxUint64, Conn: math.MaxUint64, Event: strings.Repeat("e", 255)},
		{Kind: 1, Data: []byte("data"), Key: [16]byte{15: 1}, Digest: math.MaxUint64, Node: 7, Conn: 8, Event: "e"},
	} {
		b := Encode(&e)
		if n := len(b) - len(e.Data); n > MaxSize {
			t.Errorf("the envelope has %d bytes", n)
		}
		var got broker.Entry
		if !Decode(b, &got) || !reflect.DeepEqual(got, e) {
			t.Errorf("%+v is %+v", e, got)
		}
	}
	for _, s := range []string{"", "hello", `{"a":1}`, "\xb1", "\xb1\x02" + strings.Repeat("\x00", 20), "\xb1\x01" + strings.Repeat("\x00", 20)} {
		if Decode([]byte(s), new(broker.Entry)) {
			t.Errorf("%q is an entry", s)
		}
	}
}

// Whatever comes through the broker is decoded without a panic, and what is an entry is encoded as it was.
func FuzzEnvelope(f *testing.F) {
	f.Add([]byte("hello"))
	f.Add(Encode(&broker.Entry{Event: "e", Data: []byte("data"), Node: 1, Conn: 300}))
	f.Add(Encode(&broker.Entry{Key: [16]byte{1}, Digest: 2}))
	f.Fuzz(func(t *testing.T, b []byte) {
		var e, again broker.Entry
		if !Decode(b, &e) {
			return
		}
		if !Decode(Encode(&e), &again) || !reflect.DeepEqual(e, again) || !bytes.HasSuffix(b, e.Data) {
			t.Fatalf("%+v is %+v", e, again)
		}
	})
}
