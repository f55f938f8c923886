package npm

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/internal/subprocess"
)

// isNewEnough is an expression of JavaScript: whether Node is what Vite says that it needs.
const isNewEnough = `(([major, minor]) => major > 22 || major == 22 && minor >= 12 || major == 20 && minor >= 19)(
	process.versions.node.split(".").map(Number))`

// Project is the folder of a program that uses our client.
type Project struct {
	Dir      string
	packages string // that client/package-lock.json names
}

// NewProject returns a project with these files. The client is installed in it as npm pack makes it, so what the package lacks
// is missing. The other packages are those that client/package-lock.json names.
func NewProject(t testing.TB, client string, files fs.FS) *Project {
	t.Helper()
	if out, err := exec.Command("node", "-p", isNewEnough).Output(); err == nil && strings.TrimSpace(string(out)) != "true" {
		missing(t, errors.New("a newer Node is needed, for Vite: 20.19, or 22.12 and later"))
	}
	outer := t.TempDir()
	p := &Project{Dir: filepath.Join(outer, "project"), packages: Install(t, os.DirFS(client))}
	// Node looks for packages in the folders above too. So those are found by the client, which has none of its own.
	if err := os.Symlink(p.packages, filepath.Join(outer, "node_modules")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(p.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	packed := filepath.Join(outer, "client.tgz")
	name := strings.TrimSpace(run(t, client, nil, "npm", "pack", "--silent", "--pack-destination", outer))
	if err := os.Rename(filepath.Join(outer, name), packed); err != nil {
		t.Fatal(err)
	}
	p.write(t, "package.json", `{"private": true}`)
	p.Run(t, nil, "npm", "install", "--offline", "--ignore-scripts", "--no-audit", "--no-fund", "--no-package-lock", packed)
	if err := os.Remove(filepath.Join(p.Dir, "package.json")); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(p.Dir, source{files}); err != nil {
		t.Fatal(err)
	}
	return p
}

// source is a project without what its tools have made, on the machine of somebody who has tried it.
type source struct{ fs.FS }

func (s source) ReadDir(name string) ([]fs.DirEntry, error) {
	entries, err := fs.ReadDir(s.FS, name)
	return slices.DeleteFunc(entries, func(e fs.DirEntry) bool {
		return e.Name() == "node_modules" || e.Name() == "dist"
	}), err
}

func (p *Project) write(t testing.TB, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(p.Dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// Run runs a program in the project's folder and returns what it prints: one of the packages', or of this machine. The test fails
// if the program does.
func (p *Project) Run(t testing.TB, environment []string, name string, args ...string) string {
	t.Helper()
	if own := filepath.Join(p.packages, ".bin", name); isFile(own) {
		name = own
	}
	return run(t, p.Dir, environment, name, args...)
}

func isFile(name string) bool {
	_, err := os.Stat(name)
	return err == nil
}

func run(t testing.TB, dir string, environment []string, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), timeLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	subprocess.DieWithParent(cmd)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), environment...)
	cmd.WaitDelay = time.Second // if it is ended, what it has started may still have its output open
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s%s", filepath.Base(name), strings.Join(args, " "), err, out, stderr.String())
	}
	if stderr.Len() > 0 {
		t.Logf("%s: %s", filepath.Base(name), stderr.String())
	}
	return string(out)
}
