// Command socketio runs a Flask-SocketIO app behind Caddy, which has the clients and takes the place of Redis:
//
//	go run ./examples/socketio
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	_ "github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/caddy-broadcast/caddy-broadcast"
	"github.com/caddy-broadcast/caddy-broadcast/internal/subprocess"
)

const folder = "examples/socketio/"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		log.Fatal(err)
	}
}

// run returns when the context or the app ends.
func run(ctx context.Context) error {
	python := findPython(ctx)
	if python == "" {
		return errors.New("python3 has no Flask-SocketIO for Redis: apt install python3-flask-socketio python3-redis, or pip install flask-socketio redis")
	}
	file, err := os.ReadFile(folder + "Caddyfile")
	if err != nil {
		return err
	}
	config, _, err := caddyconfig.GetAdapter("caddyfile").Adapt(file, map[string]any{"filename": "Caddyfile"})
	if err != nil {
		return err
	}
	if err := caddy.Load(config, true); err != nil {
		return err
	}
	defer caddy.Stop()
	app := exec.CommandContext(ctx, python, folder+"app.py")
	subprocess.DieWithParent(app)
	app.Stdout, app.Stderr = os.Stdout, os.Stderr
	fmt.Println("open http://localhost:8080")
	if err := app.Run(); ctx.Err() == nil {
		return fmt.Errorf("the Flask app has ended: %v", err)
	}
	return nil
}

// findPython returns a Python that can run the app. The first one in the path may not be the one of the system, whose packages
// apt installs.
func findPython(ctx context.Context) string {
	for _, name := range []string{"python3", "/usr/bin/python3", "python"} {
		if exec.CommandContext(ctx, name, "-c", "import flask_socketio, redis").Run() == nil {
			return name
		}
	}
	return ""
}
