package socket

import (
	"bytes"
	"crypto/tls"
	"net"
	"reflect"
	"unsafe"
)

// inside says where a tls.Conn has what crypto/tls gives no access to: the connection below, and its two read buffers. There
// is no other way to put something below a connection that net/http has accepted. What is read or written there is never a
// secret or a state of the protocol. If crypto/tls ever changes these fields, known is false, TLS works without a
// carrier, at a higher cost, and TestInside fails.
var inside = find()

type fields struct {
	known          bool
	conn           uintptr
	rawInput, hand uintptr
}

// find looks for the fields by name and type.
func find() (f fields) {
	f.known = true
	t := reflect.TypeFor[tls.Conn]()
	offset := func(name string, want reflect.Type) uintptr {
		field, ok := t.FieldByName(name)
		f.known = f.known && ok && field.Type == want
		return field.Offset
	}
	f.conn = offset("conn", reflect.TypeFor[net.Conn]())
	f.rawInput = offset("rawInput", reflect.TypeFor[bytes.Buffer]())
	f.hand = offset("hand", reflect.TypeFor[bytes.Buffer]())
	return f
}

// transport returns the place of the connection below.
func (f *fields) transport(c *tls.Conn) *net.Conn {
	return (*net.Conn)(unsafe.Add(unsafe.Pointer(c), f.conn))
}

// buffers returns what was read and is not decrypted yet, and handshake messages that are not complete.
func (f *fields) buffers(c *tls.Conn) [2]*bytes.Buffer {
	at := func(offset uintptr) *bytes.Buffer { return (*bytes.Buffer)(unsafe.Add(unsafe.Pointer(c), offset)) }
	return [2]*bytes.Buffer{at(f.rawInput), at(f.hand)}
}
