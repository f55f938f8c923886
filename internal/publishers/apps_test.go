package publishers

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
	"github.com/caddy-broadcast/caddy-broadcast/internal/npm"
)

// app is a small app of a framework.
type app struct {
	name string
	// section is the one of docs/publishers.md whose files are put into the app's folder.
	section string
	// setUp makes the rest of the app, and returns the command that runs it on the port in $PORT, or skips the test.
	setUp func(t *testing.T, dir string) (command string)
	json  bool // whether it accepts orders as JSON, and not as a form
}

var apps = []app{
	{name: "Flask", section: "Flask", setUp: func(t *testing.T, _ string) string {
		return caddytest.Python(t, "python3-flask", "flask") + ` -m flask --app app run --port "$PORT"`
	}},
	{name: "Django", section: "Django", setUp: setUpDjango},
	{name: "FastAPI", section: "FastAPI", json: true, setUp: func(t *testing.T, _ string) string {
		return caddytest.Python(t, "python3-fastapi uvicorn python3-httpx", "fastapi", "uvicorn", "httpx") + ` -m uvicorn main:app --port "$PORT"`
	}},
	{name: "Express", section: "Express", json: true, setUp: func(t *testing.T, dir string) string {
		if err := os.Symlink(npm.Install(t, os.DirFS("testdata/npm")), filepath.Join(dir, "node_modules")); err != nil {
			t.Fatal(err)
		}
		return "node app.mjs"
	}},
	{name: "Ruby", section: "Rails", setUp: func(t *testing.T, dir string) string {
		need(t, "ruby", "ruby", "--version")
		copyFrom(t, dir, "testdata/ruby")
		return "ruby app.rb"
	}},
	{name: "PHP", section: "Other apps and scripts", setUp: func(t *testing.T, _ string) string {
		need(t, "php-cli php-curl", "php", "-r", "curl_version();")
		return `php -S 127.0.0.1:"$PORT" index.php`
	}},
	{name: "Rails", section: "Rails", setUp: setUpRails},
	{name: "Laravel", section: "Laravel", setUp: setUpLaravel},
}

// byHand skips a test whose framework CI does not have: each takes a hundred packages of Debian, and as long as all others together.
func byHand(t *testing.T, packages string) {
	t.Helper()
	if os.Getenv("FRAMEWORKS") == "" {
		t.Skip("apt install", packages, "and set FRAMEWORKS=1")
	}
}

func setUpRails(t *testing.T, dir string) string {
	byHand(t, "ruby-railties ruby-activerecord ruby-sqlite3 puma")
	copyFrom(t, dir, "testdata/rails")
	return `puma --bind tcp://127.0.0.1:"$PORT"`
}

func setUpLaravel(t *testing.T, dir string) string {
	byHand(t, "php-laravel-framework php-guzzlehttp-guzzle php-cli php-curl php-sqlite3")
	// It is printed as a part of that file.
	entry := code(section(t, page(t, "publishers.md"), "Laravel"))["config/services.php"]
	if err := os.Remove(filepath.Join(dir, "config/services.php")); err != nil {
		t.Fatal(err)
	}
	copyFrom(t, dir, "testdata/laravel")
	write(t, dir, map[string]string{"config/services.php": "<?php return [\n" + entry + "];\n"})
	return `php -S 127.0.0.1:"$PORT" index.php`
}

// setUpDjango makes a project as Django's users do. The code of publishers.md that it shares with Flask has to be copied into it.
func setUpDjango(t *testing.T, dir string) string {
	python := caddytest.Python(t, "python3-django", "django")
	own := code(section(t, page(t, "publishers.md"), "Django"))
	for name := range own { // which startproject does not want to overwrite
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range [][]string{{"startproject", "mysite", "."}, {"startapp", "orders"}} {
		os.RemoveAll(filepath.Join(dir, args[1])) // the folders of those files
		cmd := exec.Command(python, append([]string{"-m", "django"}, args...)...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	write(t, dir, own)
	flask := code(section(t, page(t, "publishers.md"), "Flask"))
	write(t, dir, map[string]string{"mysite/broadcast.py": flask["broadcast.py"]})
	return python + ` manage.py runserver --noreload "$PORT"`
}

// need skips the test if a command fails because something is not installed, except in CI, where the test fails.
func need(t *testing.T, packages, program string, args ...string) {
	t.Helper()
	if exec.Command(program, args...).Run() == nil {
		return
	}
	if os.Getenv("CI") != "" {
		t.Fatalf("CI lacks %s", packages)
	}
	t.Skipf("apt install %s", packages)
}

// copyFrom copies a folder's files to another folder.
func copyFrom(t *testing.T, dir, from string) {
	t.Helper()
	if err := os.CopyFS(dir, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
}

// script returns the arguments that run a command of the shell in a folder, with these variables.
func script(dir, command string, environment ...string) []string {
	return append(append([]string{"env"}, environment...), "sh", "-c", fmt.Sprintf(`cd "$0" && exec %s`, command), dir)
}
