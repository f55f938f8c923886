// Package npm runs scripts in Node that use npm packages. Its tests run the programs that people use: socket.io-client, the
// packages that publish through Redis, and our own client with the frameworks and the tools that it is used with.
package npm

import (
	"context"
	"crypto/sha256"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/internal/subprocess"
)

//go:embed package.json package-lock.json *.mjs
var files embed.FS

// timeLimit is when a script is ended that hangs.
const timeLimit = 2 * time.Minute

// Run runs a script with these variables in its environment. The test fails if the script does.
func Run(t testing.TB, script string, environment ...string) {
	t.Helper()
	dir, packages := t.TempDir(), Packages(t)
	if err := os.CopyFS(dir, files); err != nil {
		t.Fatal(err)
	}
	// Node looks for packages in the folders above a script.
	if err := os.Symlink(packages, filepath.Join(dir, "node_modules")); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), timeLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "node", script)
	subprocess.DieWithParent(cmd)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), environment...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
	t.Logf("%s", out)
}

// Packages returns the folder that has the packages of this folder's package-lock.json.
func Packages(t testing.TB) string {
	t.Helper()
	return Install(t, files)
}

// Install returns a folder node_modules with the packages of a package.json and its package-lock.json. They are installed once, outside the
// repository. Where that is not possible the test is skipped, except in CI, where it fails.
func Install(t testing.TB, manifest fs.FS) string {
	t.Helper()
	dir, err := installed(manifest)
	if err != nil {
		missing(t, err)
	}
	return filepath.Join(dir, "node_modules")
}

// missing skips a test that needs something which this machine does not have. In CI it fails.
func missing(t testing.TB, what error) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatal(what)
	}
	t.Skip(what)
}

// installed installs the packages, if they are not yet.
func installed(manifest fs.FS) (dir string, err error) {
	for _, program := range []string{"node", "npm"} {
		if _, err := exec.LookPath(program); err != nil {
			return "", fmt.Errorf("no %s is installed: apt-get install nodejs npm", program)
		}
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	lock, err := fs.ReadFile(manifest, "package-lock.json")
	if err != nil {
		return "", err
	}
	// Named by what is in it, so other checkouts can use it too, and no version of it needs an update.
	dir = filepath.Join(cache, "caddy-broadcast", fmt.Sprintf("npm-%x", sha256.Sum256(lock))[:20])
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return "", err
	}
	// Packages are tested in parallel, so another process may install them now.
	fresh, err := os.MkdirTemp(filepath.Dir(dir), "npm")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(fresh)
	for _, name := range []string{"package.json", "package-lock.json"} {
		data, err := fs.ReadFile(manifest, name)
		if err != nil {
			return "", err
		}
		if err := os.WriteFile(filepath.Join(fresh, name), data, 0o600); err != nil {
			return "", err
		}
	}
	// The lock file has the hash of each package, and no script of a package is run.
	cmd := exec.Command("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
	cmd.Dir = fresh
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("npm ci: %w\n%s", err, out)
	}
	if err := os.Rename(fresh, dir); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", err
	}
	return dir, nil
}
