//go:build !unix

package websocket

import "errors"

// Elsewhere, as on Windows, a socket cannot be written without waiting, and every write goes through the backlog.
const nonBlocking = false

func writeOnce(int, []byte) (int, error) { return 0, errors.ErrUnsupported }
