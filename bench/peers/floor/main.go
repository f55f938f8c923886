//go:build linux

// The floor is the least that any server has to pay: for each message, one write(2) of prepared bytes to each socket, in a
// bare loop. It upgrades connections and does nothing else.
package main

import (
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"sync"
	"syscall"
	"unsafe"

	"github.com/gorilla/websocket"
)

func main() {
	var mu sync.Mutex
	var fds []int
	http.HandleFunc("POST /", func(w http.ResponseWriter, r *http.Request) {
		data, _ := io.ReadAll(r.Body)
		pm := frame(data)
		mu.Lock()
		defer mu.Unlock()
		for _, fd := range fds {
			// RawSyscall, because Syscall tells Go's scheduler each time, which the floor must not pay for.
			for p := pm; len(p) > 0; {
				n, _, err := syscall.RawSyscall(syscall.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)))
				if err == syscall.EAGAIN {
					continue
				}
				if err != 0 {
					break
				}
				p = p[n:]
			}
		}
	})
	http.HandleFunc("GET /", func(w http.ResponseWriter, r *http.Request) {
		c, err := (&websocket.Upgrader{}).Upgrade(w, r, nil)
		if err != nil {
			return
		}
		raw, _ := c.NetConn().(*net.TCPConn).SyscallConn()
		raw.Control(func(fd uintptr) {
			// A copy, which the runtime does not know: it does not wait for it in its own epoll, and does not close it.
			dup, _ := syscall.Dup(int(fd))
			mu.Lock()
			fds = append(fds, dup)
			mu.Unlock()
		})
		c.Close()
	})
	log.Fatal(http.ListenAndServe(os.Args[1], nil))
}

func frame(data []byte) []byte {
	switch n := len(data); {
	case n < 126:
		return append([]byte{0x81, byte(n)}, data...)
	case n < 1<<16:
		return append([]byte{0x81, 126, byte(n >> 8), byte(n)}, data...)
	default:
		return append([]byte{0x81, 127, 0, 0, 0, 0, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}, data...)
	}
}
