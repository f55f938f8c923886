package hub

import (
	"fmt"
	"testing"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
)

// TestEmitBackBetween: a connection that goes on where another one was gets an emit once, also if its first message was in what it
// has missed, or had come to the other one, and the rest comes live. It was there, on no channel, before the emit.
func TestEmitBackBetween(t *testing.T) {
	for _, rooms := range [][]string{{"a", "b"}, {"ann", "b"}} {
		for _, received := range []bool{false, true} {
			t.Run(fmt.Sprint(rooms, received), func(t *testing.T) {
				_, hubs, logs := sharing(t, 1, Config{History: 10})
				h, log := hubs[0], logs[0]
				open := connect(t, h, options(), "a", "b") // so that the log sends all
				old := connect(t, h, options())
				enter(t, old, Entrance{Channels: []string{"a", "b"}, Name: "ann", Keep: true})
				ms := []*Message{{Channel: "b", Data: []byte("x")}}
				ms = append(ms, ToRooms(&Message{Channel: "a", Data: []byte("x")}, rooms, func(room string) bool { return room == "ann" })...)
				es := entriesOf(append(ms, &Message{Channel: "b", Data: []byte("x")}), 0)
				for i := range es {
					es[i].Seq = uint64(i + 1)
				}
				send := func(es []broker.Entry) {
					log.do(func() { log.sink.Entries(es) })
					log.idle()
				}
				send(es[:1])
				back := connect(t, h, options())
				send(es[1:2])
				e := Entrance{Channels: []string{"a", "b"}, Name: "ann", Keep: true, Whole: true, LastID: FormatID("one", 1), Received: true}
				if received {
					e.LastID = FormatID("one", 2)
				}
				enter(t, back, e)
				send(es[2:])
				if received {
					expectAll(t, back, 4)
				} else {
					expectAll(t, back, 2, 4)
				}
				if rooms[0] == "a" {
					expectAll(t, open, 1, 2, 4)
				} else {
					expectAll(t, open, 1, 3, 4)
				}
			})
		}
	}
}
