package resp

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"
)

// connected returns the two ends of a connection.
func connected(t *testing.T) (a, b net.Conn) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if a, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if b, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

// TestDirect: what is written comes, also if it is more than the socket takes at once, and ends, deadlines and errors are as
// those of a net.Conn.
func TestDirect(t *testing.T) {
	a, b := connected(t)
	d := newDirect(a)
	want := bytes.Repeat([]byte("0123456789"), 1<<20)
	wrote := make(chan error)
	go func() {
		n, err := d.Write(want)
		if n != len(want) && err == nil {
			err = io.ErrShortWrite
		}
		wrote <- err
	}()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(newDirect(b), got); err != nil || !bytes.Equal(got, want) {
		t.Fatal("what came is not what was written", err)
	}
	if err := <-wrote; err != nil {
		t.Fatal(err)
	}
	a.SetReadDeadline(time.Unix(1, 0))
	if n, err := d.Read(got); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("after the deadline: %d, %v", n, err)
	}
	a.SetReadDeadline(time.Time{})
	b.(*net.TCPConn).CloseWrite()
	if n, err := d.Read(got); n != 0 || err != io.EOF {
		t.Errorf("at the end: %d, %v", n, err)
	}
	a.Close()
	if n, err := d.Read(got); n != 0 || !errors.Is(err, net.ErrClosed) {
		t.Errorf("closed, Read: %d, %v", n, err)
	}
	if n, err := d.Write(want); n != 0 || !errors.Is(err, net.ErrClosed) {
		t.Errorf("closed, Write: %d, %v", n, err)
	}
}

// TestDirectReset: a write to a peer that is gone fails.
func TestDirectReset(t *testing.T) {
	a, b := connected(t)
	b.(*net.TCPConn).SetLinger(0)
	b.Close()
	d := newDirect(a)
	if _, err := d.Read(make([]byte, 1)); err == nil {
		t.Fatal("a connection that was reset can be read")
	}
	if _, err := d.Write([]byte("x")); err == nil {
		t.Error("a connection that was reset can be written")
	}
}
