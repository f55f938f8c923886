package command

import (
	"net"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
)

// TestPublishNowhere: where no admin API is, publishing fails at once. It is not a reload that will soon be over.
func TestPublishNowhere(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Read(make([]byte, 100))
			c.Write([]byte("SSH-2.0-other\r\n"))
			c.Close()
		}
	}()
	for _, address := range []string{"http://" + l.Addr().String(), l.Addr().String()} {
		root := &cobra.Command{SilenceErrors: true}
		setUp(root)
		root.SetIn(strings.NewReader(""))
		root.SetArgs([]string{"publish", "x", "--address", address})
		failed := make(chan error, 1)
		go func() { failed <- root.Execute() }()
		select {
		case err := <-failed:
			if err == nil {
				t.Errorf("%s: published", address)
			}
		case <-time.After(5 * time.Second):
			t.Errorf("%s: is still tried", address)
		}
	}
}
