package websocket

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"
)

// TestAutobahn has cases of the Autobahn test suite, by their numbers, that have failed or come close to it. The bytes are
// sent as they are, in the pieces given; what would follow the last one is not sent, so the answer cannot wait for it.
func TestAutobahn(t *testing.T) { byPollerAndWithout(t, testAutobahn) }

func testAutobahn(t *testing.T, change func(*Endpoint)) {
	addr, h := serve(t, change)
	for name, c := range autobahnCases() {
		t.Run(name, func(t *testing.T) { c.run(t, addr) })
	}
	waitFor(t, func() bool { return h.Stats().Connections <= 3 }) // those that were not closed
}

// autobahnCase is what a client sends, and what it gets.
type autobahnCase struct {
	pieces []string
	want   []string // frames, with the close codes alone
	closes bool     // the client closes first, so it has no close frame left to send
}

func (c autobahnCase) run(t *testing.T, addr string) {
	p := open(t, addr, "")
	p.Conn.(*net.TCPConn).SetNoDelay(true)
	for _, piece := range c.pieces {
		p.Write([]byte(piece))
	}
	var got []string
	for len(got) < len(c.want) {
		first, payload := p.frame()
		if first == 0x88 {
			payload = payload[:min(2, len(payload))]
		}
		got = append(got, fmt.Sprintf("%x %s", first, payload))
	}
	if !slices.Equal(got, c.want) {
		t.Fatalf("got %q, not %q", got, c.want)
	}
	if !strings.HasPrefix(got[len(got)-1], "88") {
		return
	}
	// Section 7.1.1: the server shuts its side, whether the client's answer can be read or not, and ends when
	// the client has shut its own.
	if !c.closes {
		p.Write(mask(0x88, got[len(got)-1][3:]))
	}
	if rest, err := io.ReadAll(p.r); err != nil || len(rest) > 0 {
		t.Errorf("after the close frame: %q, %v", rest, err)
	}
	p.Close()
}

func autobahnCases() map[string]autobahnCase {
	var tenPings []byte
	var tenPongs []string
	for i := range 10 {
		payload := fmt.Sprint("payload-", i)
		tenPings = append(tenPings, mask(0x89, payload)...)
		tenPongs = append(tenPongs, "8a "+payload)
	}
	bytewise := func(p []byte) (pieces []string) {
		for i := range p {
			pieces = append(pieces, string(p[i:i+1]))
		}
		return pieces
	}
	const begin, rest = "\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xf4", "\x80\x80edited"
	text := mask(0x81, begin+"\x90"+rest)
	protocolError, invalidData := "88 "+closeWith(1002), "88 "+closeWith(1007)
	return map[string]autobahnCase{
		"2.10 ten pings":                  {[]string{string(tenPings)}, tenPongs, false},
		"2.11 ten pings, by the byte":     {bytewise(tenPings), tenPongs, false},
		"3.1 RSV1":                        {[]string{string(mask(0xc1, "x"))}, []string{protocolError}, false},
		"4.1.3 a reserved opcode between": {[]string{string(mask(0x81, "x")), string(mask(0x85, "")), string(mask(0x89, ""))}, []string{"81 x", protocolError}, false},
		"5.1 a ping in parts":             {[]string{string(mask(0x09, "fragment1")), string(mask(0x80, "fragment2"))}, []string{protocolError}, false},
		"6.3.1 not UTF-8, whole":          {[]string{string(mask(0x81, begin[:11]+"\xed\xa0\x80edited"))}, []string{invalidData}, false},
		"6.3.2 not UTF-8, by the byte":    {bytewise(mask(0x81, begin[:11]+"\xed\xa0\x80edited"))[:6+13], []string{invalidData}, false},
		"6.4.1 in the second of three":    {[]string{string(mask(0x01, begin[:11])), string(mask(0x00, "\xf4\x90\x80\x80"))}, []string{invalidData}, false},
		"6.4.2 its second byte":           {[]string{string(mask(0x01, begin)), string(mask(0x00, "\x90"))}, []string{invalidData}, false},
		"6.4.3 within a frame":            {[]string{string(text[:6+11]), string(text[6+11 : 6+15])}, []string{invalidData}, false},
		"6.4.4 its second byte":           {[]string{string(text[:6+12]), string(text[6+12 : 6+13])}, []string{invalidData}, false},
		"6.2.3 UTF-8 by the byte":         {bytewise(mask(0x81, "Hello-\u00b5@\U0001f600")), []string{"81 Hello-\u00b5@\U0001f600"}, false},
		"7.1.1 a message, then a close":   {[]string{string(mask(0x81, "x")) + string(mask(0x88, closeWith(1000)))}, []string{"81 x", "88 " + closeWith(1000)}, true},
		"7.1.3 a ping after the close":    {[]string{string(mask(0x88, closeWith(1000))) + string(mask(0x89, ""))}, []string{"88 " + closeWith(1000)}, true},
		"7.3.2 half a close code":         {[]string{string(mask(0x88, "a"))}, []string{protocolError}, false},
		"7.9.3 close code 1005":           {[]string{string(mask(0x88, closeWith(1005)))}, []string{protocolError}, false},
	}
}

// TestProtocolErrorDrains: a client that sends much behind what breaks the protocol reads the close frame all the same,
// and the end of the stream, before it has stopped.
func TestProtocolErrorDrains(t *testing.T) { byPollerAndWithout(t, testProtocolErrorDrains) }

func testProtocolErrorDrains(t *testing.T, change func(*Endpoint)) {
	addr, h := serve(t, change)
	p := open(t, addr, "")
	p.Write(mask(0x8f, ""))
	sent := make(chan error, 1)
	go func() {
		_, err := p.Write(bytes.Repeat(mask(0x81, strings.Repeat("x", 1000)), 5000))
		sent <- err
	}()
	if first, payload := p.frame(); first != 0x88 || !bytes.HasPrefix(payload, []byte(closeWith(1002))) {
		t.Fatalf("%x %q", first, payload)
	}
	if _, err := ws.ReadHeader(p.r); err != io.EOF {
		t.Fatal(err)
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
	if n := h.Stats().Connections; n != 1 {
		t.Errorf("%d connections", n)
	}
	p.Close()
	waitFor(t, func() bool { return h.Stats().Connections == 0 })
}

func waitFor(t *testing.T, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it does not come")
		}
	}
}
