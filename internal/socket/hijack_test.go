package socket

import (
	"bufio"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"
	"testing/synctest"
	"time"
)

// hijackable is a server's writer whose client accepts no data.
type hijackable struct {
	http.ResponseWriter
	conn net.Conn
	brw  *bufio.ReadWriter
}

func (h hijackable) Hijack() (net.Conn, *bufio.ReadWriter, error) { return h.conn, h.brw, nil }

// TestHijackStuck: a client that accepts no data of the response does not block the handler forever.
func TestHijackStuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conn, client := net.Pipe()
		defer client.Close()
		w := hijackable{httptest.NewRecorder(), conn, bufio.NewReadWriter(bufio.NewReader(conn), bufio.NewWriter(conn))}
		before := time.Now()
		_, _, err := Hijack(w, func() error {
			_, err := w.brw.WriteString("HTTP/1.1 101 Switching Protocols\r\n\r\n")
			return err
		})
		if !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(before) != flushTimeout {
			t.Errorf("%v after %v", err, time.Since(before))
		}
		if _, err := conn.Write(nil); err == nil {
			t.Error("the connection is open")
		}
	})
}
