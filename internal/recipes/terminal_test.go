package recipes

import (
	"bytes"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/internal/subprocess"
)

// shell returns a process that runs a command of the page as in a terminal on the site's server.
func (s *site) shell(script string) *exec.Cmd {
	s.T.Helper()
	if strings.Contains(script, "curl") {
		program(s.T, "curl", "curl")
	}
	// The admin API checks the names that it is asked by, so it is asked by the one that it has here.
	script = strings.ReplaceAll(script, "localhost:2019", s.Admin)
	// The last command takes the shell's place, so that it ends with it. Commands go on after a backslash.
	lines := strings.SplitAfter(strings.ReplaceAll(strings.TrimSpace(script), "\\\n", ""), "\n")
	if last := &lines[len(lines)-1]; !strings.Contains(*last, "|") {
		*last = "exec " + *last
	}
	script = strings.Join(lines, "")
	cmd := exec.Command("sh", "-ec", script)
	subprocess.DieWithParent(cmd)
	cmd.Dir = s.dir
	cmd.Env = append(os.Environ(), "PATH="+filepath.Join(s.dir, "bin")+":"+os.Getenv("PATH"), "CURL_HOME="+s.dir)
	return cmd
}

// run runs a command to its end, and returns what it prints.
func (s *site) run(script string) string {
	s.T.Helper()
	out, err := s.shell(script).CombinedOutput()
	if err != nil {
		s.T.Logf("%s: %v", script, err) // it is the output that counts: curl -m fails when its time is over
	}
	return string(out)
}

// expect runs a command, whose output must contain these texts.
func (s *site) expect(script string, wants ...string) {
	s.T.Helper()
	out := s.run(script)
	for _, want := range wants {
		if !strings.Contains(out, want) {
			s.T.Errorf("%s\nprints %q, without %q", script, out, want)
		}
	}
}

// running is a command that runs until the test ends.
type running struct {
	t    testing.TB
	cmd  *exec.Cmd
	mu   sync.Mutex
	out  bytes.Buffer
	more chan struct{} // it has printed something, or has ended
}

// Write takes what the command prints.
func (c *running) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n, err := c.out.Write(p)
	select {
	case c.more <- struct{}{}:
	default:
	}
	return n, err
}

// follow starts a command.
func (s *site) follow(script string) *running {
	s.T.Helper()
	return start(s.T, s.shell(script))
}

func start(t testing.TB, cmd *exec.Cmd) *running {
	t.Helper()
	c := &running{t: t, cmd: cmd, more: make(chan struct{}, 1)}
	cmd.Stdout, cmd.Stderr = c, c
	cmd.WaitDelay = time.Second // for what it has started itself
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		cmd.Wait()
		c.Write([]byte("\n(it has ended)\n"))
		close(ended)
	}()
	t.Cleanup(func() {
		cmd.Process.Kill()
		<-ended
	})
	return c
}

// wait waits until the command has printed a text, and returns all that it has printed.
func (c *running) wait(want string) string {
	c.t.Helper()
	timeout := time.After(time.Minute)
	for {
		c.mu.Lock()
		out := c.out.String()
		c.mu.Unlock()
		if strings.Contains(out, want) {
			return out
		}
		if strings.Contains(out, "(it has ended)") {
			c.t.Fatalf("%s\nprints %q, without %q", c.cmd, out, want)
		}
		select {
		case <-c.more:
		case <-timeout:
			c.t.Fatalf("%s\nprints %q, and not yet %q", c.cmd, out, want)
		}
	}
}

// readAll reads the body of a response.
func readAll(t testing.TB, resp *http.Response) string {
	t.Helper()
	defer resp.Body.Close()
	p, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(p)
}
