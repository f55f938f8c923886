package queue

import (
	"encoding/json"
	"testing"
)

// BenchmarkDecode decodes a message of each form, of 91 bytes of data as in docs/performance.md, beside encoding/json.
func BenchmarkDecode(b *testing.B) {
	const data = `{"symbol": "CADDY", "price": 3.25, "volume": 1200, "time": 1700000000123, "note": "abcdefgh"}`
	pickle := pickleOf("}(\x8c\x06symbol\x8c\x05CADDY\x8c\x05priceG\x40\x0a\x00\x00\x00\x00\x00\x00\x8c\x06volumeM\xb0\x04" +
		"\x8c\x04time\x8a\x06\x7b\x68\xe5\xcf\x8b\x01\x8c\x04note\x8c\x08abcdefghu")
	msgpack := packed(1, "\x85\xa6symbol\xa5CADDY\xa5price\xcb\x40\x0a\x00\x00\x00\x00\x00\x00\xa6volume\xcd\x04\xb0"+
		"\xa4time\xcf\x00\x00\x01\x8b\xcf\xe5\x68\x7b\xa4note\xa8abcdefgh")
	for _, c := range []struct{ name, channel, payload string }{
		{"JSON", "socketio", emitJSON(`"update"`, "["+data+"]", `, "binary": false`)},
		{"pickle", "socketio", pickle},
		{"msgpack", "socket.io#/#", msgpack},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(c.payload)))
			p := []byte(c.payload)
			for b.Loop() {
				if _, err := testDecoder.Decode(c.channel, p); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("encoding json", func(b *testing.B) {
		b.ReportAllocs()
		p := []byte(emitJSON(`"update"`, "["+data+"]", `, "binary": false`))
		for b.Loop() {
			var m struct {
				Method, Event, Namespace string
				Data, Room, SkipSID      json.RawMessage
				Binary                   *bool
			}
			if err := json.Unmarshal(p, &m); err != nil {
				b.Fatal(err)
			}
		}
	})
}
