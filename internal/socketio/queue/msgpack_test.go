package queue

import (
	"runtime"
	"strings"
	"testing"
)

// packed wraps msgpack, the arguments of an event, in a message of redis-emitter.
func packed(n int, arguments string) string {
	return "\x93\xa1u\x83\xa4type\x02\xa4data\xdd\x00\x00\x00" + string([]byte{byte(n + 1)}) + "\xa1x" + arguments + "\xa3nsp\xa1/\x81\xa5rooms\x90"
}

func TestMsgpack(t *testing.T) {
	emit := func(args string) string { return `emit / x 1 ["x",` + args + `]` }
	placeholder := func(b string) string { return emit(`{"_placeholder":true,"num":0}`) + " " + b }
	checkOutcomes(t, "socket.io#/#", []outcome{
		{"nil", packed(1, "\xc0"), emit("null")},
		{"false", packed(1, "\xc2"), emit("false")},
		{"true", packed(1, "\xc3"), emit("true")},
		{"fixint", packed(1, "\x7f"), emit("127")},
		{"negative fixint", packed(1, "\xe0"), emit("-32")},
		{"uint 8", packed(1, "\xcc\xff"), emit("255")},
		{"uint 16", packed(1, "\xcd\x01\x02"), emit("258")},
		{"uint 32", packed(1, "\xce\xff\xff\xff\xff"), emit("4294967295")},
		{"uint 64", packed(1, "\xcf\xff\xff\xff\xff\xff\xff\xff\xff"), emit("18446744073709551615")},
		{"int 8", packed(1, "\xd0\x80"), emit("-128")},
		{"int 16", packed(1, "\xd1\xff\xfe"), emit("-2")},
		{"int 32", packed(1, "\xd2\x80\x00\x00\x00"), emit("-2147483648")},
		{"int 64", packed(1, "\xd3\x80\x00\x00\x00\x00\x00\x00\x00"), emit("-9223372036854775808")},
		{"float 32", packed(1, "\xca\x3f\x80\x00\x00"), emit("1")},
		{"float 64", packed(1, "\xcb\x3f\xf8\x00\x00\x00\x00\x00\x00"), emit("1.5")},
		{"NaN", packed(1, "\xcb\x7f\xf8\x00\x00\x00\x00\x00\x01"), emit("null")},
		{"infinity", packed(1, "\xca\xff\x80\x00\x00"), emit("null")},
		{"str 8", packed(1, "\xd9\x01y"), emit(`"y"`)},
		{"str 16", packed(1, "\xda\x00\x01y"), emit(`"y"`)},
		{"str 32", packed(1, "\xdb\x00\x00\x00\x01y"), emit(`"y"`)},
		{"str that is not UTF-8", packed(1, "\xa3a\xffb"), emit(`"a�b"`)},
		{"bin 8", packed(1, "\xc4\x01y"), placeholder(`"y"`)},
		{"bin 16", packed(1, "\xc5\x00\x01y"), placeholder(`"y"`)},
		{"bin 32", packed(1, "\xc6\x00\x00\x00\x01y"), placeholder(`"y"`)},
		{"array 16", packed(1, "\xdc\x00\x02\x01\x02"), emit("[1,2]")},
		{"array 32", packed(1, "\xdd\x00\x00\x00\x02\x01\x02"), emit("[1,2]")},
		{"map", packed(1, "\x82\xa1a\x01\x05\x02"), emit(`{"a":1,"5":2}`)},
		{"map 16", packed(1, "\xde\x00\x01\xa1a\x01"), emit(`{"a":1}`)},
		{"map 32", packed(1, "\xdf\x00\x00\x00\x01\xa1a\x01"), emit(`{"a":1}`)},
		{"timestamp 64", packed(1, "\xd7\xff\x00\x00\x00\x00\x00\x00\x00\x01"), emit(`"1970-01-01T00:00:01.000Z"`)},
		{"undefined of notepack 2", packed(1, "\xd4\x00\x00"), emit("null")},
		{"no arguments", packed(0, ""), `emit / x 0 ["x"]`},
		{"number for a name", "\x93\xa1u\x82\xa4type\x02\xa4data\x92\x07\x01\x80", "emit / 7 1 [7,1]"},
		{"wants an ack", "\x93\xa1u\x83\xa4type\x05\xa2id\x01\xa4data\x91\xa1x\x80", `emit / ack x 0 ["x"]`},
		{"rooms and except", "\x93\xa1u\x82\xa4type\x02\xa4data\x91\xa1x\x82\xa5rooms\x92\xa1a\x05\xa6except\x91\xa1b", `emit / rooms=a|5 except=b x 0 ["x"]`},
		{"rooms nil", "\x93\xa1u\x82\xa4type\x02\xa4data\x91\xa1x\x81\xa5rooms\xc0", `emit / x 0 ["x"]`},
		{"more than three", "\x94\xa1u\x82\xa4type\x02\xa4data\x91\xa1x\x80\xc0", `emit / x 0 ["x"]`},
		{"data twice", "\x93\xa1u\x83\xa4type\x02\xa4data\x92\xa1x\xc4\x01y\xa4data\x91\xa1z\x80", `emit / z 0 ["z"]`},
		{"another packet", "\x93\xa1u\x82\xa4type\x03\xa4data\x90\x80", "error: empty array"},
		{"an ack packet", "\x93\xa1u\x82\xa4type\x03\xa4data\x91\xa1x\x80", "ignore"},
	})
}

func TestMsgpackRefused(t *testing.T) {
	nested := func(open string, n int) string { return strings.Repeat(open, n) + "\xc0" }
	checkOutcomes(t, "socket.io#/#", []outcome{
		{"nothing", "", "error: truncated"},
		{"JSON", `["emitter",{"type":2},{}]`, "error: not an array"},
		{"two", "\x92\xa1u\x80", "error: uid, packet and options"},
		{"packet not a map", "\x93\xa1u\xc0\x80", "error: packet: packet is not a map"},
		{"options not a map", "\x93\xa1u\x82\xa4type\x02\xa4data\x91\xa1x\xc0", "error: options: options is not a map"},
		{"no data", "\x93\xa1u\x81\xa4type\x02\x80", "error: data"},
		{"data not an array", "\x93\xa1u\x82\xa4type\x02\xa4data\xa1x\x80", "error: not an array"},
		{"data empty", "\x93\xa1u\x82\xa4type\x02\xa4data\x90\x80", "error: without the event's name"},
		{"name nil", "\x93\xa1u\x82\xa4type\x02\xa4data\x91\xc0\x80", "error: the event is not a string"},
		{"name binary", "\x93\xa1u\x82\xa4type\x02\xa4data\x91\xc4\x01x\x80", "error: binary data outside"},
		{"reserved", "\x93\xa1u\x82\xa4type\x02\xa4data\x91\xa7connect\x80", "error: reserved"},
		{"rooms a string", "\x93\xa1u\x82\xa4type\x02\xa4data\x91\xa1x\x81\xa5rooms\xc3", "error: neither a string"},
		{"rooms binary", "\x93\xa1u\x82\xa4type\x02\xa4data\x91\xa1x\x81\xa5rooms\x91\xc4\x01a", "error: binary data outside"},
		{"rooms nested", "\x93\xa1u\x82\xa4type\x02\xa4data\x91\xa1x\x81\xa5rooms\x91\x90", "error: neither a string"},
		{"namespace a number", "\x93\xa1u\x83\xa4type\x02\xa4data\x91\xa1x\xa3nsp\x01\x80", "error: nsp"},
		{"key not a string", "\x93\xa1u\x81\x01\x02\x80", "error: a key is not a string"},
		{"key of a map", packed(1, "\x81\xc0\x01"), "error: a key of a map"},
		{"c1", packed(1, "\xc1"), "error: c1"},
		{"huge string", packed(1, "\xdb\xff\xff\xff\xff"), "error: truncated"},
		{"huge binary", packed(1, "\xc6\xff\xff\xff\xff"), "error: truncated"},
		{"huge array", packed(1, "\xdd\xff\xff\xff\xff"), "error: truncated"},
		{"huge map", packed(1, "\xdf\xff\xff\xff\xff"), "error: truncated"},
		{"huge ext", packed(1, "\xc9\xff\xff\xff\xff\x00"), "error: truncated"},
		{"ext", packed(1, "\xd4\x01\x00"), "error: an extension of type 1 and 1 bytes"},
		{"ext with another length", packed(1, "\xd5\xff\x00\x00"), "error: an extension of type -1 and 2 bytes"},
		{"ext 8", packed(1, "\xc7\x00\x05"), "error: an extension of type 5 and 0 bytes"},
		{"time out of range", packed(1, "\xc7\x0c\xff\x00\x00\x00\x00\x7f\xff\xff\xff\xff\xff\xff\xff"), "error: a time out of the range"},
		{"time before the range", packed(1, "\xc7\x0c\xff\x00\x00\x00\x00\x80\x00\x00\x00\x00\x00\x00\x00"), "error: a time out of the range"},
		{"time with too many nanoseconds", packed(1, "\xc7\x0c\xff\xff\xff\xff\xff\x00\x00\x00\x00\x00\x00\x00\x00"), "error: a time out of the range"},
		{"attachments", packed(1, "\x9b"+strings.Repeat("\xc4\x00", 11)), "error: more than 10 attachments"},
		{"wrong placeholder", packed(2, "\xc4\x00\x82\xac_placeholder\xc3\xa3num\x05"), "error: does not name"},
		{"as deep as possible", packed(1, nested("\x91", maxDepth-1)), `emit / x 1 ["x",` + strings.Repeat("[", maxDepth-1) + "null" + strings.Repeat("]", maxDepth-1) + "]"},
		{"too deep", packed(1, nested("\x91", maxDepth)), "error: levels"},
		{"maps too deep", packed(1, nested("\x81\xa1a", maxDepth)), "error: levels"},
		{"far too deep", packed(1, nested("\x91", 1<<20)), "error: levels"},
		{"too large", packed(1, "\xdb\x00\x10\x00\x00"+strings.Repeat("y", 1<<20)), "error: max_message"},
		{"grows too large", packed(1, "\xdb\x00\x08\x00\x00"+strings.Repeat("\x01", 1<<19)), "error: max_message"},
		{"many nils", packed(1, "\xdd\x00\x10\x00\x00"+strings.Repeat("\xc0", 1<<20)), "error: max_message"},
	})
}

// TestMsgpackTruncated cuts recorded messages at every byte, and changes every byte.
func TestMsgpackTruncated(t *testing.T) {
	for _, r := range readRecorded(t, "emitter.jsonl") {
		for i := range r.Payload {
			p := r.Payload
			// The reference does not look at what is behind the options either, but they end the message.
			if _, err := testDecoder.Decode(r.Channel, p[:i:i]); err == nil {
				t.Errorf("%s: accepted up to byte %d", r.Name, i)
			}
			changed := append([]byte(nil), p...)
			for _, bit := range []byte{1, 0x10, 0x80, 0xff} {
				changed[i] = p[i] ^ bit
				checkEvent(t, changed, r.Channel)
			}
		}
	}
}

// TestMsgpackLengths: lengths are checked before anything is allocated for them.
func TestMsgpackLengths(t *testing.T) {
	for _, p := range []string{packed(1, "\xdd\xff\xff\xff\xff"), packed(1, "\xc6\x7f\xff\xff\xff"), "\xdd\xff\xff\xff\xff",
		"\x93\xa1u\x82\xa4type\x02\xa4data\x91\xa1x\x81\xa5rooms\xdd\x7f\xff\xff\xff"} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := testDecoder.Decode("socket.io#/#", []byte(p))
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; err == nil || n > 1<<20 {
			t.Errorf("%v: %d bytes are allocated", err, n)
		}
	}
}
