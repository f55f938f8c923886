package hostile_test

import (
	"fmt"
	"io"
	"math"
	"strings"
	"testing"

	"github.com/caddy-broadcast/caddy-broadcast/internal/frame/frametest"
)

// Outcomes besides HTTP's statuses and close codes.
const (
	cutOff = 0    // without a close frame
	noCode = 1005 // a close frame without a code
)

// row is what a client does, and how that ends.
type row struct {
	name    string
	request string // "" is the handshake
	send    string // after the answer 101
	want    int    // the close code; the HTTP status, if it is the handshake that counts
	header  string // in the answer

	// play is a client that does more than to send.
	play func(t *testing.T, s *server) (outcome int)
}

var (
	handshakes = []row{
		{name: "HTTP/1.0", request: swap("HTTP/1.1", "HTTP/1.0"), want: 400},
		{name: "POST", request: swap("GET", "POST"), want: 400},
		{name: "a body", request: with("Content-Length: 5\r\n\r\nhello"), want: 400},
		{name: "a chunked body", request: with("Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"), want: 400},
		{name: "an empty chunked body", request: with("Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), want: 400},
		{name: "a request in the body", request: with("Content-Length: 31\r\n\r\nGET / HTTP/1.1\r\nHost: nobody\r\n\r\n"), want: 400},
		{name: "a body of two lengths", request: with("Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!"), want: 400},
		{name: "a body of a length and chunked", want: 400,
			request: with("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")},
		{name: "no key", request: swap("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", ""), want: 400},
		{name: "two keys", request: with("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"), want: 400},
		{name: "an empty key", request: swap("dGhlIHNhbXBsZSBub25jZQ==", ""), want: 400},
		{name: "a key of 15 bytes", request: swap("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25j"), want: 400},
		{name: "a key of 17 bytes", request: swap("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZSE="), want: 400},
		{name: "a key that is not base64", request: swap("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25j!!=="), want: 400},
		// RFC 6455, section 4.2.2, lets a server choose the status: "such as 426".
		{name: "version 8", request: swap("Version: 13", "Version: 8"), want: 400, header: "Sec-Websocket-Version: 13"},
		{name: "version 14", request: swap("Version: 13", "Version: 14"), want: 400, header: "Sec-Websocket-Version: 13"},
		{name: "no version", request: swap("Sec-WebSocket-Version: 13\r\n", ""), want: 400, header: "Sec-Websocket-Version: 13"},
		{name: "two versions", request: with("Sec-WebSocket-Version: 13\r\n\r\n"), want: 400},
		{name: "no host", request: swap("Host: h\r\n", ""), want: 400},
		{name: "two hosts", request: with("Host: h\r\n\r\n"), want: 400},
		// Without one of these it is no handshake; they are lists, and one on two lines is one (RFC 9110, section 5.3).
		{name: "no Upgrade", request: swap("Upgrade: websocket\r\n", ""), want: 200},
		{name: "no Connection", request: swap("Connection: keep-alive, Upgrade\r\n", ""), want: 200},
		{name: "two Upgrades", request: with("Upgrade: websocket\r\n\r\n"), want: 101},
		{name: "two Connections", request: with("Connection: Upgrade\r\n\r\n"), want: 101},
		{name: "a foreign origin", request: with("Origin: https://evil.example\r\n\r\n"), want: 403},
		{name: "the origin null", request: with("Origin: null\r\n\r\n"), want: 403},
		{name: "an own and a foreign origin", request: with("Origin: http://h\r\nOrigin: https://evil.example\r\n\r\n"), want: 403},
		{name: "a subprotocol that is none", request: with("Sec-WebSocket-Protocol: a b\r\n\r\n"), want: 400},
		{name: "no channel", request: swap("/ws", "/named"), want: 400},
		{name: "a long channel", request: swap("/ws", "/named?channel="+strings.Repeat("x", 256)), want: 400},
		{name: "a long user", request: swap("/ws", "/named?channel=x&user="+strings.Repeat("x", 256)), want: 400},
		{name: "frames behind a refused handshake", want: 403,
			request: with("Origin: null\r\n\r\n") + mask(0x81, "GET / HTTP/1.1\r\nHost: h\r\n\r\n")},
		{name: "a request behind a refused handshake", want: 403,
			request: with("Origin: null\r\n\r\n") + "GET / HTTP/1.1\r\nHost: h\r\n\r\n"},
		{name: "a slow handshake", play: slowly, want: cutOff},
	}

	deflate = strings.Replace(handshake, "/ws", "/deflate", 1) + "Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
	rated   = strings.Replace(handshake, "/ws", "/rated", 1) + "\r\n"
	v1      = with("Sec-WebSocket-Protocol: broadcast.v1\r\n\r\n")
	ratedV1 = strings.Replace(v1, "/ws", "/rated", 1)

	frames = []row{
		{name: "RSV1", send: mask(0xc1, "x"), want: 1002},
		{name: "RSV2", send: mask(0xa1, "x"), want: 1002},
		{name: "RSV3", send: mask(0x91, "x"), want: 1002},
		{name: "RSV1 on a ping", send: mask(0xc9, "x"), want: 1002},
		{name: "RSV1 on a continuation", send: mask(0x01, "x") + mask(0xc0, "y"), want: 1002},
		{name: "RSV2 with deflate", request: deflate, send: mask(0xa1, "x"), want: 1002},
		{name: "RSV3 with deflate", request: deflate, send: mask(0x91, "x"), want: 1002},
		{name: "RSV1 and RSV2 with deflate", request: deflate, send: mask(0xe1, "x"), want: 1002},
		{name: "RSV1 on a ping with deflate", request: deflate, send: mask(0xc9, "x"), want: 1002},
		{name: "RSV1 on a close with deflate", request: deflate, send: mask(0xc8, "\x03\xe8"), want: 1002},
		{name: "RSV1 on a continuation with deflate", request: deflate, send: mask(0x41, "x") + mask(0xc0, "y"), want: 1002},

		{name: "a part of a ping", send: mask(0x09, "x"), want: 1002},
		{name: "a part of a pong", send: mask(0x0a, "x"), want: 1002},
		{name: "a part of a close", send: mask(0x08, "\x03\xe8"), want: 1002},
		{name: "a ping of 126 bytes", send: mask(0x89, strings.Repeat("x", 126)), want: 1002},
		{name: "a pong of 126 bytes", send: mask(0x8a, strings.Repeat("x", 126)), want: 1002},
		{name: "a close of 126 bytes", send: goodbye(1000, strings.Repeat("x", 124)), want: 1002},
		{name: "a ping of 2^62 bytes", send: "\x89\xff\x40\x00\x00\x00\x00\x00\x00\x00\x01\x02\x03\x04", want: 1002},

		{name: "not masked", send: "\x81\x05hello", want: 1002},
		{name: "a ping not masked", send: "\x89\x00", want: 1002},
		{name: "a close not masked", send: "\x88\x02\x03\xe8", want: 1002},
		{name: "5 bytes in the form for 16 bits", send: "\x81\xfe\x00\x05\x00\x00\x00\x00hello", want: 1002},
		{name: "125 bytes in the form for 16 bits", send: "\x81\xfe\x00\x7d\x00\x00\x00\x00" + strings.Repeat("x", 125), want: 1002},
		{name: "5 bytes in the form for 64 bits", send: "\x81\xff\x00\x00\x00\x00\x00\x00\x00\x05\x00\x00\x00\x00hello", want: 1002},
		{name: "65535 bytes in the form for 64 bits", send: "\x81\xff\x00\x00\x00\x00\x00\x00\xff\xff\x00\x00\x00\x00", want: 1002},
		{name: "the top bit of the length", send: "\x82\xff\x80\x00\x00\x00\x00\x01\x00\x00\x01\x02\x03\x04", want: 1002},
		{name: "a frame of 2^62 bytes", send: "\x82\xff\x40\x00\x00\x00\x00\x00\x00\x00\x01\x02\x03\x04", want: 1009},
		{name: "a part of 2^62 bytes", send: "\x02\xff\x40\x00\x00\x00\x00\x00\x00\x00\x01\x02\x03\x04", want: 1009},
		{name: "2^63-1 bytes more than a part", send: mask(0x02, "x") + "\x80\xff\x7f\xff\xff\xff\xff\xff\xff\xff\x01\x02\x03\x04",
			want: 1009},
		{name: "a byte too many", send: mask(0x82, strings.Repeat("x", maxMessage+1)), want: 1009},

		{name: "a message in another", send: mask(0x01, "x") + mask(0x81, "y"), want: 1002},
		{name: "a message in an empty part", send: mask(0x01, "") + mask(0x82, "y"), want: 1002},
		{name: "the end of nothing", send: mask(0x80, "x"), want: 1002},
		{name: "a continuation of nothing", send: mask(0x00, ""), want: 1002},

		{name: "not UTF-8", send: mask(0x81, "\xc3\x28"), want: 1007},
		{name: "not UTF-8 in parts", send: mask(0x01, "\xc3") + mask(0x00, "") + mask(0x80, "\x28"), want: 1007},
		{name: "half a character", send: mask(0x81, "\xe2\x82"), want: 1007},
		{name: "half a pair of surrogates", send: mask(0x81, "\xed\xa0\x80"), want: 1007},
		{name: "an overlong slash", send: mask(0x81, "\xc0\xaf"), want: 1007},
		{name: "not UTF-8, deflated", request: deflate, send: mask(0xc1, frametest.Deflate("\xc3\x28")), want: 1007},

		{name: "a close of 1 byte", send: mask(0x88, "\x03"), want: 1002},
		{name: "a reason that is not UTF-8", send: goodbye(1000, "\xff"), want: 1002},
		{name: "frames after the close", send: goodbye(1000, "") + mask(0x81, "x") + mask(0x83, ""), want: 1000},
		{name: "a close in a message", send: mask(0x01, "x") + mask(0x88, ""), want: noCode},

		{name: "a bomb", request: deflate, send: mask(0xc1, frametest.Deflate(strings.Repeat("x", 8<<20))), want: 1009},
		{name: "a bomb in parts", request: deflate, send: inParts(0x41, frametest.Deflate(strings.Repeat("x", 8<<20))), want: 1009},
		{name: "a bomb that is over by a byte", request: deflate, send: mask(0xc1, frametest.Deflate(strings.Repeat("x", maxMessage+1))),
			want: 1009},
		{name: "a block of a type that is none", request: deflate, send: mask(0xc1, "\xff\xff\xff\xff"), want: 1007},
		{name: "deflated data that refers to before its start", request: deflate, send: mask(0xc2, "\x02\x13\x00"), want: 1007},
		{name: "deflated data that breaks off", request: deflate, send: mask(0xc1, frametest.Deflate(strings.Repeat("hello", 20))[:4]),
			want: 1007},

		{name: "pings without end, without a rate", send: strings.Repeat(mask(0x89, "x"), 100_000) + goodbye(1000, ""), want: 1000},
		{name: "pings without end", request: rated, send: strings.Repeat(mask(0x89, "x"), 100_000), want: 1008},
		{name: "pongs without end, with a rate", request: rated, send: strings.Repeat(mask(0x8a, "x"), 100_000), want: 1008},
		{name: "empty parts without end, with a rate", request: rated, send: mask(0x01, "") + strings.Repeat(mask(0x00, ""), 100_000),
			want: 1008},
		{name: "v1: pongs without end", request: ratedV1, send: strings.Repeat(mask(0x8a, "x"), 100_000), want: 1008},
		{name: "a keep-alive, and as many messages as the rate lets", request: rated,
			send: strings.Repeat(mask(0x89, "x")+mask(0x8a, "x"), 5) + strings.Repeat(mask(0x81, "x"), 100) + goodbye(1000, ""), want: 1000},
		{name: "messages without end", request: rated, send: strings.Repeat(mask(0x81, "x"), 100_000), want: 1008},
		{name: "pongs without end", send: strings.Repeat(mask(0x8a, "x"), 100_000) + goodbye(1000, ""), want: 1000},
		{name: "parts of a byte without end", send: mask(0x01, "") + strings.Repeat(mask(0x00, "x"), maxMessage+1), want: 1009},
		{name: "deflated parts of a byte without end", request: deflate, send: mask(0x41, "") + strings.Repeat(mask(0x00, "x"), 70_000),
			want: 1009},
		// Nothing ends that without a rate, and the server keeps nothing of it: it costs some 25 ns a frame.
		{name: "empty parts without end", send: mask(0x01, "") + strings.Repeat(mask(0x00, ""), 200_000) + goodbye(1000, ""),
			want: 1000},
		{name: "more and more after a fault", play: onAndOn(mask(0x83, "")), want: 1002},
		{name: "more and more after too much", play: onAndOn(mask(0x82, strings.Repeat("x", maxMessage+1))), want: 1009},
		{name: "half a frame, and FIN", want: cutOff, play: then(func(p *peer) {
			io.WriteString(p, mask(0x82, "half")[:7])
			p.CloseWrite()
		})},
		{name: "half a frame, and RST", want: cutOff, play: then(func(p *peer) {
			io.WriteString(p, mask(0x82, "half")[:7])
			p.SetLinger(0)
			p.Close()
		})},
		{name: "silence", play: silently, want: cutOff},

		{name: "v1: binary", request: v1, send: mask(0x82, "{}"), want: 1003},
		{name: "v1: too big", request: v1, send: mask(0x81, strings.Repeat(" ", 2*maxMessage+4<<10+1)), want: 1009},
		{name: "v1: deep", request: v1, send: mask(0x81, strings.Repeat("[", 2*maxMessage)) + goodbye(1000, ""), want: 1000},
		{name: "v1: deep data", request: v1, send: mask(0x81, `{"publish":{"data":`+strings.Repeat(`{"":`, 20_000)) + goodbye(1000, ""),
			want: 1000},
		{name: "v1: nothing, often", request: v1, send: strings.Repeat(mask(0x81, ""), 1000) + goodbye(1000, ""), want: 1000},
		{name: "v1: many in one", request: v1, send: mask(0x81, "["+strings.Repeat("0,", 50_000)+"0]") + goodbye(1000, ""), want: 1000},
		{name: "v1: nonsense without end", request: ratedV1, send: strings.Repeat(mask(0x81, "?"), 10_000), want: 1008},
	}
)

// rows are all.
func rows() []row {
	all := append(handshakes[:len(handshakes):len(handshakes)], frames...)
	for _, opcode := range []byte{3, 4, 5, 6, 7, 11, 12, 13, 14, 15} {
		all = append(all, row{name: fmt.Sprint("opcode ", opcode), send: mask(0x80|opcode, ""), want: 1002})
		all = append(all, row{name: fmt.Sprint("opcode ", opcode, " in a message"), want: 1002,
			send: mask(0x01, "x") + mask(0x80|opcode, "x")})
	}
	for _, code := range []uint16{0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, math.MaxUint16} {
		all = append(all, row{name: fmt.Sprint("close code ", code), send: goodbye(code, ""), want: 1002})
	}
	return all
}
