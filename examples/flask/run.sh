#!/bin/sh
# Flask behind Caddy. Ctrl-C ends both.
cd "$(dirname "$0")/../.." || exit
python3 examples/flask/app.py &
trap 'kill $!' EXIT
go run ./cmd/caddy run --config examples/flask/Caddyfile
