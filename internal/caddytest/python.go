package caddytest

import (
	"os"
	"os/exec"
	"testing"
)

// Python returns a Python that has some modules. Without one the test is skipped, except in CI, where it fails. The first Python
// in the path may not be the system's, which has the packages of apt.
func Python(t testing.TB, modules, packages string) string {
	t.Helper()
	for _, name := range []string{"python3", "/usr/bin/python3"} {
		if exec.Command(name, "-c", "import "+modules).Run() == nil {
			return name
		}
	}
	if os.Getenv("CI") != "" {
		t.Fatal("CI has no Python with " + modules)
	}
	t.Skip("there is no Python with " + modules + ": apt install " + packages)
	return ""
}
