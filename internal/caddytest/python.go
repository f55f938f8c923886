package caddytest

import (
	"net"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/internal/subprocess"
)

// hasModules looks for modules without running them: to import Flask takes half a second.
const hasModules = "import importlib.util, sys; sys.exit(any(importlib.util.find_spec(m) is None for m in sys.argv[1:]))"

// Python returns a Python that has some modules. Without one the test is skipped, except in CI, where it fails. The first Python
// in the path may not be the system's, which has the packages of apt.
func Python(t testing.TB, packages string, modules ...string) string {
	t.Helper()
	for _, name := range []string{"python3", "/usr/bin/python3"} {
		if exec.Command(name, append([]string{"-c", hasModules}, modules...)...).Run() == nil {
			return name
		}
	}
	if os.Getenv("CI") != "" {
		t.Fatalf("CI has no Python with %s", modules)
	}
	t.Skipf("there is no Python with %s: apt install %s", modules, packages)
	return ""
}

// StartApp starts an app in Python that listens on the port in $PORT of this machine, and waits until it does.
func StartApp(t *testing.T, python, file, port string, env ...string) {
	t.Helper()
	app := exec.Command(python, file)
	subprocess.DieWithParent(app)
	app.Env = append(append(os.Environ(), "PORT="+port), env...)
	app.Stderr = t.Output()
	if err := app.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		app.Wait()
		close(ended)
	}()
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
		case <-ended:
			t.Fatal(file, "has ended:", app.ProcessState)
		default:
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}
