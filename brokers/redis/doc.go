// Package redis shares messages with other Caddy processes by a server of Redis or Valkey.
package redis

import _ "github.com/redis/rueidis"
