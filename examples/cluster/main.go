// Command cluster runs three Caddys that share the log of a nats-server, and a load balancer in front of them:
//
//	go run ./examples/cluster
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/caddy-broadcast/caddy-broadcast"
	_ "github.com/caddy-broadcast/caddy-broadcast/brokers/nats"
	"github.com/caddy-broadcast/caddy-broadcast/internal/subprocess"
)

const folder = "examples/cluster/"

func main() {
	if len(os.Args) > 1 && os.Args[1] == "run" { // a node: this program is its own Caddy
		go exitWithParent()
		caddycmd.Main()
		return
	}
	ports := flag.String("ports", "8080 8081 8082 8083 2021 2022 2023 4229",
		"of the load balancer, of the three nodes, of their admin APIs, and of nats-server")
	rate := flag.Int("rate", 10, "numbers published per second")
	restart := flag.Duration("restart", 5*time.Second, "how long a process that has ended is away")
	flag.Parse()
	c := cluster{dir: must(os.MkdirTemp("", "cluster")), restart: *restart}
	if p := strings.Fields(*ports); len(p) == 8 {
		c.site, c.nodes, c.admins, c.nats = p[0], p[1:4], p[4:7], p[7]
	} else {
		log.Fatalf("-ports has %d ports, must be 8", len(p))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := c.run(ctx, *rate)
	stop()
	c.processes.Wait()
	os.RemoveAll(c.dir)
	if err != nil {
		log.Fatal(err)
	}
}

// exitWithParent ends this process when the one that started it has ended, however that happened.
func exitWithParent() {
	io.Copy(io.Discard, os.Stdin)
	os.Exit(0)
}

type cluster struct {
	dir           string // of nats-server
	site, nats    string // ports
	nodes, admins []string
	restart       time.Duration
	processes     sync.WaitGroup
}

// run returns when the context ends.
func (c *cluster) run(ctx context.Context, rate int) error {
	// It prints where the program is, and builds it before if necessary.
	server, err := exec.CommandContext(ctx, "go", "tool", "-n", "nats-server").Output()
	if err != nil {
		return fmt.Errorf("building nats-server: %w", err)
	}
	kill := map[string]chan struct{}{"nats": make(chan struct{})}
	c.keepRunning(ctx, "nats-server", kill["nats"], nil, strings.TrimSpace(string(server)), "-a", "localhost", "-p", c.nats, "-js", "-sd", c.dir)
	for i, port := range c.nodes {
		name := string(rune('a' + i))
		kill[name] = make(chan struct{})
		env := []string{"NODE=" + name, "PORT=" + port, "ADMIN=" + c.admins[i], "NATS=" + c.nats}
		c.keepRunning(ctx, "node "+name, kill[name], env, must(os.Executable()), "run", "--config", folder+"Caddyfile")
	}
	if err := c.balance(); err != nil {
		return err
	}
	url := "http://localhost:" + c.site
	fmt.Printf("open %s; to kill a process, type a, b, c or nats, and press Enter\n", url)
	go killAsked(kill)
	return feed(ctx, url+"/live?tab=feed", rate)
}

// keepRunning starts a program, and starts it again some time after it has ended.
func (c *cluster) keepRunning(ctx context.Context, name string, kill <-chan struct{}, env []string, program string, args ...string) {
	c.processes.Go(func() {
		for ctx.Err() == nil {
			once, cancel := context.WithCancel(ctx) // CommandContext kills the process as kill -9 does
			cmd := exec.CommandContext(once, program, args...)
			cmd.Env = append(os.Environ(), env...)
			// The nodes notice the end of their standard input when this process is gone. nats-server does not read its own.
			subprocess.DieWithParent(cmd)
			cmd.Stderr = os.Stderr
			if name == "nats-server" {
				cmd.Stderr = nil // it logs all that it does
			}
			alive, err := cmd.StdinPipe()
			if err == nil {
				err = cmd.Start()
			}
			if err == nil {
				fmt.Printf("%s runs, as process %d\n", name, cmd.Process.Pid)
				ended := make(chan error, 1)
				go func() { ended <- cmd.Wait() }()
				select {
				case err = <-ended:
				case <-kill:
					cancel()
					err = <-ended
				}
				alive.Close()
			}
			cancel()
			if ctx.Err() != nil {
				return
			}
			fmt.Printf("%s has ended (%v), and starts again in %s\n", name, err, c.restart)
			select {
			case <-time.After(c.restart):
			case <-ctx.Done():
			}
		}
	})
}

// balance runs the load balancer in this process.
func (c *cluster) balance() error {
	os.Setenv("PORT", c.site)
	os.Setenv("NODES", "localhost:"+strings.Join(c.nodes, " localhost:"))
	file, err := os.ReadFile(folder + "Caddyfile.balancer")
	if err != nil {
		return err
	}
	config, _, err := caddyconfig.GetAdapter("caddyfile").Adapt(file, map[string]any{"filename": "Caddyfile"})
	if err != nil {
		return err
	}
	return caddy.Load(config, true)
}

// killAsked kills the processes whose names are typed.
func killAsked(kill map[string]chan struct{}) {
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		name := strings.TrimSpace(in.Text())
		select {
		case kill[name] <- struct{}{}:
		default:
			fmt.Printf("no %q is running\n", name)
		}
	}
}

// feed publishes the numbers 1, 2, 3 … A number whose fate is not known is published again with the same key, on whichever
// node the load balancer chooses next, so that it is published once.
func feed(ctx context.Context, url string, rate int) error {
	tick := time.NewTicker(time.Second / time.Duration(rate))
	defer tick.Stop()
	run := fmt.Sprint(time.Now().UnixNano())
	for n := 1; ; n++ {
		line, _ := json.Marshal(map[string]any{"channel": "news", "event": "number", "data": n, "key": fmt.Sprint(run, "-", n)})
		for publish(ctx, url, line) != nil {
			select {
			case <-time.After(100 * time.Millisecond):
			case <-ctx.Done():
				return nil
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

func publish(ctx context.Context, url string, line []byte) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(line))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	io.Copy(io.Discard, resp.Body) // so that the connection is used again
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("publishing: %s", resp.Status)
	}
	return nil
}

func must[T any](v T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return v
}
