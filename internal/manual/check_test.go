package manual

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
)

// packages are those of Debian that have the programs whose commands are run. A program that is not here fails the test: add it
// here and to .ci/run, or list its commands as not run.
var packages = map[string]string{"curl": "curl", "redis-cli": "redis-tools", "caddy": "", "go": "", "sh": ""}

// requirePrograms skips the test if the program of a command is missing. In CI it fails the test.
func requirePrograms(t *testing.T, text string) {
	t.Helper()
	program := strings.Fields(text)[0]
	name, ok := packages[program]
	if !ok {
		t.Fatalf("this command is neither run nor listed with a reason why not: %s", text)
	}
	if name == "" { // it is Go's, or the test's own
		program = "sh"
	}
	if _, err := exec.LookPath(program); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skipf("%v: apt-get install %s", err, name)
	}
}

var goCommand = regexp.MustCompile(`(?:^|&& |\s)go (run|build|test|generate) ([^#&|]+)`)

// checkGo reports whether a command is one of Go's, other than one that starts Caddy. Most of them are benchmarks, which take
// minutes. So it is not run, but what it names must exist: the package, its flags, and its tests.
func checkGo(text string) (isGo bool, err error) {
	m := goCommand.FindStringSubmatch(text)
	if m == nil || strings.HasPrefix(text, serveCommand) {
		return false, nil
	}
	words := strings.Fields(m[2])
	i := slices.IndexFunc(words, func(s string) bool { return strings.HasPrefix(s, "./") })
	if i < 0 {
		return true, fmt.Errorf("it names no package")
	}
	before, folder, after := words[:i], words[i], words[i+1:]
	code, err := source(folder)
	if err != nil {
		return true, err
	}
	if m[1] == "run" || m[1] == "build" {
		if !strings.Contains(code, "\npackage main\n") && !strings.HasPrefix(code, "package main\n") {
			return true, fmt.Errorf("%s is not a program", folder)
		}
		for _, word := range after {
			if name := strings.TrimLeft(word, "-"); name != word && !strings.Contains(code, `("`+name+`"`) && !strings.Contains(code, `, "`+name+`"`) {
				return true, fmt.Errorf("%s has no flag %s", folder, word)
			}
		}
		return true, nil
	}
	for i, word := range before {
		if word != "-run" && word != "-bench" || i+1 == len(before) {
			continue
		}
		pattern := strings.Trim(before[i+1], "'")
		if pattern == "^$" || pattern == "." {
			continue
		}
		if !matchesTest(code, pattern) {
			return true, fmt.Errorf("%s has no test that matches %s", folder, pattern)
		}
	}
	return true, nil
}

func matchesTest(code, pattern string) bool {
	for _, m := range regexp.MustCompile(`(?m)^func ((?:Test|Benchmark|Fuzz)\w+)\(`).FindAllStringSubmatch(code, -1) {
		if regexp.MustCompile(pattern).MatchString(m[1]) {
			return true
		}
	}
	return false
}

// source returns the Go code of a package, or of those below a folder if it ends in "...".
func source(folder string) (string, error) {
	folder, below := strings.CutSuffix(folder, "/...")
	pattern := filepath.Join(root, folder, "*.go")
	files, err := filepath.Glob(pattern)
	if below {
		more, _ := filepath.Glob(filepath.Join(root, folder, "*", "*.go"))
		files = append(files, more...)
	}
	if err != nil || len(files) == 0 {
		return "", fmt.Errorf("there is no package %s", folder)
	}
	var all strings.Builder
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return "", err
		}
		all.Write(text)
	}
	return all.String(), nil
}

var (
	usesCaddy = regexp.MustCompile(`(?:^|\| )caddy ([a-z-]+(?: [a-z]+)?)[^|]*`)
	longFlags = regexp.MustCompile(`--[a-z][a-z-]*`)
	helps     = make(map[string]string) // by command
)

// checkUsage checks that Caddy has a command with these flags, for sentences that name it without arguments that make sense.
func checkUsage(t *testing.T, text string) {
	t.Helper()
	for _, m := range usesCaddy.FindAllStringSubmatch(text, -1) {
		name := m[1]
		if first, _, _ := strings.Cut(name, " "); first != "broadcast" {
			name = first // and not its argument
		}
		help, ok := helps[name]
		if !ok {
			help = usage(t, name)
			helps[name] = help
		}
		if !regexp.MustCompile(`(?m)^  caddy ` + name + `\b`).MatchString(help) {
			t.Errorf("there is no command caddy %s", name)
		}
		for _, flag := range longFlags.FindAllString(m[0], -1) {
			if !strings.Contains(help, flag+" ") && !strings.Contains(help, flag+"\n") {
				t.Errorf("caddy %s has no %s", name, flag)
			}
		}
	}
}

func usage(t *testing.T, name string) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, append(strings.Fields(name), "--help")...)
	cmd.Env = append(os.Environ(), caddytest.AsCaddy+"=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%s: %v\n%s", name, err, out)
	}
	return string(out)
}
