package websocket

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

const nonBlocking = true

// writeOnce writes what the socket takes at once. The call does not wait, so the scheduler is not told of it.
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

// hasRoom says whether the socket's buffer takes n bytes, and what TLS and the kernel add, without waiting.
func hasRoom(fd, n int) bool {
	var info [unix.SK_MEMINFO_VARS]uint32
	size := uint32(unsafe.Sizeof(info))
	_, _, err := syscall.RawSyscall6(syscall.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_MEMINFO,
		uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
	return err == 0 && int(info[unix.SK_MEMINFO_WMEM_QUEUED])+2*n+4096 < int(info[unix.SK_MEMINFO_SNDBUF])
}
