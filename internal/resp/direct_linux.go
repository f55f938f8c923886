package resp

import (
	"io"
	"net"
	"syscall"
	"unsafe"
)

// direct is a socket that is read and written without telling Go's scheduler of it. Its monitor, which is woken for each system
// call that might block, else takes a tenth of the CPU time of a publication to few subscribers (docs/performance.md). One
// goroutine may read and one may write.
type direct struct {
	raw     syscall.RawConn
	in, out transfer
}

// transfer is a system call.
type transfer struct {
	number uintptr
	call   func(fd uintptr) bool // once, because it is allocated
	p      []byte
	n      int
	err    syscall.Errno
}

// newDirect returns a connection's socket, or the connection itself if it has none.
func newDirect(nc net.Conn) io.ReadWriter {
	s, ok := nc.(syscall.Conn)
	if !ok {
		return nc
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return nc // it is closed
	}
	d := &direct{raw: raw, in: transfer{number: syscall.SYS_READ}, out: transfer{number: syscall.SYS_WRITE}}
	d.in.call, d.out.call = d.in.try, d.out.try
	return d
}

// try makes the system call. It reports false if it would have to wait. The socket does not block, so RawSyscall may be used.
func (t *transfer) try(fd uintptr) bool {
	for {
		n, _, err := syscall.RawSyscall(t.number, fd, uintptr(unsafe.Pointer(unsafe.SliceData(t.p))), uintptr(len(t.p)))
		switch err {
		case syscall.EINTR:
		case syscall.EAGAIN:
			return false
		default:
			t.n, t.err = int(n), err
			return true
		}
	}
}

// run makes the system call, with wait to call it and wait for the socket.
func (t *transfer) run(wait func(func(uintptr) bool) error, p []byte) (int, error) {
	t.p = p
	err := wait(t.call)
	t.p = nil
	switch {
	case err != nil:
		return 0, err
	case t.err != 0:
		return 0, t.err
	}
	return t.n, nil
}

// Read reads as net.Conn does, also with deadlines.
func (d *direct) Read(p []byte) (int, error) {
	n, err := d.in.run(d.raw.Read, p)
	if n == 0 && err == nil && len(p) > 0 {
		err = io.EOF
	}
	return n, err
}

// Write writes all of p.
func (d *direct) Write(p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var more int
		more, err = d.out.run(d.raw.Write, p[n:])
		n += more
	}
	return n, err
}
