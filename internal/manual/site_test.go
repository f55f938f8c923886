package manual

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
	"github.com/caddy-broadcast/caddy-broadcast/internal/subprocess"
)

// site is a Caddy that the commands of a page are run against. They reach it under the names and ports that are printed: curl
// by the option connect-to in its configuration, and caddy by the variable CADDY_ADMIN.
type site struct {
	*caddytest.Server
	queue   string            // address for the global option `redis listen`, QUEUE
	dir     string            // where commands are run
	env     []string          // of commands
	replace *strings.Replacer // what only this page has replaced
}

// connectTo is where curl finds the printed hosts: ADDR and TLS have the site, and ADMIN the admin API. The last line is for all
// other hosts, so that no test sends anything to a stranger.
const connectTo = `connect-to = "example.com:443:TLS"
connect-to = "example.com:80:ADDR"
connect-to = "localhost:8080:ADDR"
connect-to = "localhost:2019:ADMIN"
connect-to = "::127.0.0.1:1"
noproxy = "*"
cacert = "CERTIFICATE"
fail-with-body
silent
show-error
max-time = 20
`

const caddyfile = `{
	admin ADMIN {
		origins ADMIN localhost:2019
	}
	persist_config off
	auto_https disable_redirects
	log {
		output file LOG
	}
	GLOBAL
}
(site) {
	bind 127.0.0.1
	SITE
}
http://:HTTP {
	import site
}
https://example.com:HTTPS {
	DIRECTIVE
	import site
}
`

// newSite starts the Caddy for a page. Unless the page has a description, example.com has a route at /ws.
func newSite(t *testing.T, d description) *site {
	t.Helper()
	dir := t.TempDir()
	s := &site{Server: &caddytest.Server{T: t, Addr: caddytest.FreeAddr(t), Admin: caddytest.FreeAddr(t)}, dir: dir, queue: caddytest.FreeAddr(t)}
	s.Log = filepath.Join(dir, "log")
	if d.site == "" {
		d.site = "broadcast /ws default news"
	}
	if d.global == "" {
		d.global = "broadcast {\n\thistory 100\n}"
	}
	secure, certificate := caddytest.FreePort(t), caddytest.Certificate(t, "example.com")
	_, port, _ := strings.Cut(s.Addr, ":")
	config := strings.NewReplacer("GLOBAL", d.global, "SITE", d.site, "DIRECTIVE", certificate, "HTTPS", secure, "HTTP", port).Replace(caddyfile)
	caddytest.Run(t, strings.NewReplacer("ADMIN", s.Admin, "LOG", s.Log, "QUEUE", s.queue).Replace(config))

	curlrc := strings.NewReplacer("ADDR", s.Addr, "TLS", "127.0.0.1:"+secure, "ADMIN", s.Admin,
		"CERTIFICATE", strings.Fields(certificate)[1]).Replace(connectTo)
	write(t, filepath.Join(dir, ".curlrc"), curlrc, 0o600)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// The test binary is its own Caddy: see caddytest.Main.
	bin := filepath.Join(dir, "bin")
	write(t, filepath.Join(bin, "caddy"), fmt.Sprintf("#!/bin/sh\n%s=1 exec '%s' \"$@\"\n", caddytest.AsCaddy, self), 0o700)
	s.env = append(os.Environ(), "CURL_HOME="+dir, "HOME="+dir, "CADDY_ADMIN="+s.Admin, "PATH="+bin+":"+os.Getenv("PATH"))
	var replace []string
	if d.prepare != nil {
		replace = d.prepare(s)
	}
	s.replace = strings.NewReplacer(replace...)
	return s
}

func write(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

// serveCommand is how the commands begin that start an example.
const serveCommand = "go run ./cmd/caddy run --config "

// expect runs a command. It must succeed, and print what the page says.
func (s *site) expect(t *testing.T, c command, d description) {
	t.Helper()
	if file, ok := strings.CutPrefix(c.text, serveCommand); ok {
		s.serve(t, file)
		return
	}
	out, err := s.run(t, c.text)
	if err != nil {
		t.Fatalf("%s: %v\n%s", c.text, err, out)
	}
	for start, pattern := range d.prints {
		if strings.HasPrefix(c.text, start) {
			if !regexp.MustCompile(pattern).MatchString(out) {
				t.Errorf("%s prints %q, not %s", c.text, out, pattern)
			}
			return
		}
	}
	if c.want != "" && normal(out) != normal(c.want) {
		t.Errorf("%s prints %s, not %s", c.text, normal(out), normal(c.want))
	}
}

// endless are commands that run until they are interrupted, and print messages.
var endless = regexp.MustCompile(`^(?:curl -N |caddy broadcast tail)`)

// run runs a command in a shell, and returns what it prints.
func (s *site) run(t *testing.T, text string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-c", s.replace.Replace(text))
	cmd.Dir, cmd.Env = s.dir, s.env
	cmd.WaitDelay = time.Second // a program that the shell has started may go on, and hold the pipe
	var out, problem bytes.Buffer
	cmd.Stderr = &problem
	if endless.MatchString(text) {
		return s.stream(t, cmd)
	}
	cmd.Stdout = &out
	err := cmd.Run()
	return out.String(), errors.Join(err, newError(problem.String()))
}

// newError returns what a command has written to its standard error. Caddy logs there too, at any level.
func newError(text string) error {
	if text = regexp.MustCompile(`(?m)^.*\sINFO\s.*\n|^\{"level":"info".*\n`).ReplaceAllString(text, ""); text != "" {
		return errors.New(text)
	}
	return nil
}

// stream runs a command that is endless, publishes until it prints that, and ends it.
func (s *site) stream(t *testing.T, cmd *exec.Cmd) (string, error) {
	t.Helper()
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	subprocess.DieWithParent(cmd)
	if err := cmd.Start(); err != nil {
		return "", err
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	read := make(chan string, 1)
	go func() {
		var all strings.Builder
		buf := make([]byte, 4096)
		for !strings.Contains(all.String(), "a message for the stream") {
			n, err := pipe.Read(buf)
			all.Write(buf[:n])
			if err != nil {
				break
			}
		}
		read <- all.String()
	}()
	server := s.In(t)
	// Published again and again, because only its first message shows that a program has subscribed.
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); {
		for _, channel := range []string{"default", "news"} {
			if status, answer := server.Post(s.Admin+"/broadcast/publish?channel="+channel, "text/plain", "a message for the stream"); status != http.StatusOK {
				t.Fatal(status, answer)
			}
		}
		select {
		case out := <-read:
			if strings.Contains(out, "a message for the stream") {
				return out, nil
			}
			return out, errors.New("it has ended")
		case <-time.After(50 * time.Millisecond):
		}
	}
	return "", errors.New("it prints no message")
}

// serve starts a Caddy with a file of this repository, as a process, and waits until its site has a page.
func (s *site) serve(t *testing.T, file string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, file))
	if err != nil {
		t.Fatal(err)
	}
	folder, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	addr, admin := caddytest.FreeAddr(t), caddytest.FreeAddr(t)
	if !strings.Contains(string(text), "localhost:8080") {
		t.Fatalf("%s has no site at localhost:8080", file)
	}
	config := strings.NewReplacer("localhost:8080", addr, "root examples/", "root "+folder+"/examples/").Replace(string(text))
	copied := filepath.Join(t.TempDir(), "Caddyfile")
	write(t, copied, config, 0o600)
	t.Setenv("CADDY_ADMIN", admin)
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	caddytest.StartProcess(t, self, copied, addr, admin)
	if status, body := s.In(t).Do(http.MethodGet, addr+"/", ""); status != http.StatusOK || !strings.Contains(body, "<script") {
		t.Errorf("%d %s", status, body)
	}
}
