package socket

import (
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// nonBlocking reports whether writeOnce works on this system.
const nonBlocking = true

// writeOnce writes what the socket accepts without blocking. Because the call does not block, RawSyscall can be used, which
// does not involve the scheduler (docs/performance.md: paced 6.3 to 5.7 µs, with other changes).
func writeOnce(fd int, p []byte) (int, error) {
	for {
		n, _, err := syscall.RawSyscall(syscall.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)))
		switch err {
		case 0:
			return int(n), nil
		case syscall.EINTR:
		case syscall.EAGAIN:
			return 0, nil
		default:
			return 0, err
		}
	}
}

// hasRoom reports whether the socket is likely to accept n bytes now. The system counts its own overhead, of which a quarter is
// enough here.
func hasRoom(fd, n int) bool {
	// Of linux/sock_diag.h: SK_MEMINFO_WMEM_ALLOC, SK_MEMINFO_SNDBUF, SK_MEMINFO_WMEM_QUEUED.
	var info [9]uint32
	size := uint32(unsafe.Sizeof(info))
	_, _, err := syscall.RawSyscall6(syscall.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_MEMINFO,
		uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
	return err != 0 || int(info[3])-int(max(info[2], info[5])) >= n+n/4
}

// bytesAcked returns how many bytes of a TCP connection the peer's system has confirmed (tcpi_bytes_acked, RFC 4898).
func bytesAcked(fd int) (n uint64, ok bool) {
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return 0, false
	}
	return info.Bytes_acked, true
}

// limitUnsent has the socket accept no more while the system has that many bytes that it has not sent yet. The error is ignored,
// because a Unix socket has no such option.
func limitUnsent(fd, n int) { unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, n) }

// setUserTimeout sets TCP_USER_TIMEOUT. The error is ignored, because a Unix socket has no such option.
func setUserTimeout(fd int, d time.Duration) {
	unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(d.Milliseconds()))
}
