package doctor_test

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/caddy-broadcast/caddy-broadcast/internal/adminclient"
	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
	"github.com/caddy-broadcast/caddy-broadcast/internal/doctor"
)

// brokenInside are configurations with something wrong that only the admin API tells. HERE is where it is wrong.
var brokenInside = []struct {
	name, config, wrong string
	check, found        string
	state               doctor.State
}{
	{
		name: "try_files", config: "HERE", wrong: "broadcast /live news\ntry_files {path} /index.html\nfile_server",
		check: "routes", state: doctor.Problem, found: "127.0.0.1/live: no request reaches this route",
	},
	{
		name: "forward_auth", config: "forward_auth localhost:1 {\nuri /auth\nHERE\n}\nbroadcast /ws",
		check: "routes", state: doctor.Advice, found: "forward_auth passes WebSocket handshakes on",
	},
	{
		name: "no history", config: "HERE\n---\nbroadcast /ws",
		check: "history", state: doctor.Advice, found: "no messages are kept",
	},
}

// TestInside: what the admin API tells is wrong is named, and the printed lines fix it.
func TestInside(t *testing.T) {
	s := caddytest.Start(t, "broadcast /ws")
	examine := func(t *testing.T, config string) doctor.Report {
		t.Helper()
		reload(t, s.Load, config)
		return run(t, doctor.Options{Admin: admin(t, s), Named: true})
	}
	for _, c := range brokenInside {
		t.Run(c.name, func(t *testing.T) {
			f := finding(t, examine(t, strings.Replace(c.config, "HERE", c.wrong, 1)), c.check, c.state, c.found)
			report := examine(t, strings.Replace(c.config, "HERE", lines(t, f, "Caddyfile"), 1))
			healthy(t, report)
			finding(t, report, c.check, doctor.OK, "")
		})
	}
	t.Run("a rejection that the log does not explain", func(t *testing.T) {
		// The test's own log has that level already, so this is a Caddyfile without it.
		site := "{\nadmin " + s.Admin + "\npersist_config off\nHERE\n}\nhttp://" + s.Addr + " {\nbroadcast /ws {query.room}\n}"
		o := options(t, "http://"+s.Addr+"/ws")
		o.Admin = admin(t, s)
		load := func(here string) doctor.Report {
			reload(t, caddytest.Load, strings.Replace(site, "HERE", here, 1))
			return run(t, o)
		}
		f := finding(t, load(""), "log", doctor.Advice, "the log does not say why requests are rejected")
		finding(t, load(lines(t, f, "Caddyfile")+"\n"), "log", doctor.OK, "the log says why")
	})
	t.Run("an admin API for everybody", func(t *testing.T) {
		_, port, _ := strings.Cut(s.Admin, ":")
		site := "{\nADMIN\npersist_config off\n}\nhttp://" + s.Addr + " {\nbroadcast /ws\n}"
		load := func(line string) doctor.Report {
			reload(t, caddytest.Load, strings.Replace(site, "ADMIN", line, 1))
			c, err := adminclient.New("localhost:" + port)
			if err != nil {
				t.Fatal(err)
			}
			return run(t, doctor.Options{Admin: c})
		}
		f := finding(t, load("admin 0.0.0.0:"+port+" {\norigins localhost:"+port+"\n}"), "admin", doctor.Advice, "the admin API listens on")
		finding(t, load(strings.Replace(lines(t, f, "Caddyfile"), "2019", port, 1)), "admin", doctor.OK, "it responds")
	})
	t.Run("an admin API that is not there", func(t *testing.T) {
		c, err := adminclient.New(caddytest.FreeAddr(t))
		if err != nil {
			t.Fatal(err)
		}
		o := doctor.Options{Admin: c}
		if f := finding(t, run(t, o), "admin", doctor.Problem, "connection refused"); !strings.Contains(f.Fix, "start Caddy, or say where its admin API is") {
			t.Errorf("the fix is %q", f.Fix)
		}
		o = options(t, "http://"+s.Addr+"/ws")
		o.Admin = c
		r := run(t, o)
		healthy(t, r)
		finding(t, r, "admin", doctor.Skipped, "run it where Caddy runs")
	})
}

// TestFewFiles: a Caddy that may open few files.
func TestFewFiles(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("needs prlimit")
	}
	api, addr := caddytest.FreeAddr(t), caddytest.FreeAddr(t)
	file := filepath.Join(t.TempDir(), "Caddyfile")
	if err := os.WriteFile(file, []byte("{\nadmin "+api+"\npersist_config off\n}\nhttp://"+addr+" {\nbroadcast /ws\n}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd, _ := caddytest.StartProcess(t, os.Args[0], file, addr)
	c, err := adminclient.New(api)
	if err != nil {
		t.Fatal(err)
	}
	// Connections that stay, so that a few files more or less make no difference, and the request for the metrics finds room. Each has
	// a response, so Caddy has accepted it.
	for range 80 {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprintf(conn, "HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\n")
		if _, err := http.ReadResponse(bufio.NewReader(conn), nil); err != nil {
			t.Fatal(err)
		}
	}
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	few := uint64(len(open)) + 8
	for _, step := range []struct {
		limit uint64
		state doctor.State
		found string
	}{{few, doctor.Problem, fmt.Sprintf("of at most %d files are open", few)}, {4096, doctor.Advice, "at most 4096 files"}, {10_000, doctor.OK, "of at most 10000 files"}} {
		limitFiles(t, cmd.Process.Pid, step.limit)
		f := finding(t, run(t, doctor.Options{Admin: c}), "files", step.state, step.found)
		if step.state != doctor.OK && lines(t, f, "systemd") != "[Service]\nLimitNOFILE=1048576" {
			t.Errorf("the fix is %+v", f)
		}
	}
}
