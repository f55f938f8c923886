//go:build unix && !linux

package socket

import (
	"syscall"
	"time"
)

// nonBlocking reports whether writeOnce works on this system.
const nonBlocking = true

// writeOnce writes what the socket accepts without blocking. Unlike on Linux it does not use RawSyscall: macOS
// and OpenBSD want system calls to go through libc.
func writeOnce(fd int, p []byte) (int, error) {
	for {
		n, err := syscall.Write(fd, p)
		switch err {
		case nil:
			return n, nil
		case syscall.EINTR:
		case syscall.EAGAIN:
			return 0, nil
		default:
			return 0, err
		}
	}
}

func setUserTimeout(int, time.Duration) {}

func bytesAcked(int) (n uint64, ok bool) { return 0, false }

// limitUnsent does nothing: what the system has accepted is sent, however old it is by then.
func limitUnsent(int, int) {}

// hasRoom is not known here. What the socket does not accept is kept.
func hasRoom(fd, n int) bool { return true }
