#!/bin/sh
# A site whose visitors can watch its access log. Ctrl-C ends everything.
cd "$(dirname "$0")/../.." || exit
dir=$(mktemp -d)
export LOG_FILE="$dir/access.log"
go build -o "$dir/caddy" ./cmd/caddy || exit
touch "$LOG_FILE"
trap 'kill 0' INT TERM EXIT
(sleep 1; tail -n +1 -F "$LOG_FILE" | "$dir/caddy" broadcast publish --channel log --lines >/dev/null) &
"$dir/caddy" run --config examples/log/Caddyfile
