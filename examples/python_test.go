package examples_test

import (
	"net"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/internal/subprocess"
)

// startApp starts an app in Python that listens on the port of $PORT, and waits until it does.
func startApp(t *testing.T, python, file, port string, env ...string) {
	t.Helper()
	app := exec.Command(python, file)
	subprocess.DieWithParent(app)
	app.Env = append(append(os.Environ(), "PORT="+port), env...)
	app.Stderr = t.Output()
	if err := app.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- app.Wait() }()
	t.Cleanup(func() {
		app.Process.Kill()
		<-ended
	})
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) { // another process has no event
		c, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err == nil {
			c.Close()
			return
		}
		select {
		case err := <-ended:
			ended <- nil
			t.Fatal(file, "has ended:", err)
		default:
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}
