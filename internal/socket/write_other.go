//go:build !unix

package socket

import (
	"errors"
	"time"
)

// On other systems, such as Windows, a socket cannot be written without blocking, so every write goes through the backlog.
const nonBlocking = false

func writeOnce(int, []byte) (int, error) { return 0, errors.ErrUnsupported }

func setUserTimeout(int, time.Duration) {}

func bytesAcked(int) (n uint64, ok bool) { return 0, false }

// limitUnsent does nothing: what the system has accepted is sent, however old it is by then.
func limitUnsent(int, int) {}

// hasRoom is not known here. What the socket does not accept is kept.
func hasRoom(fd, n int) bool { return true }
