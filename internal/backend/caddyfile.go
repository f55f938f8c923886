package backend

import (
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-broadcast/caddy-broadcast/internal/brokermodule"
	"github.com/caddy-broadcast/caddy-broadcast/internal/option"
)

// ParseListen parses a line and its block:
//
//	redis listen [<address>] {
//	    user     <name> <password>
//	    password <password>
//	    <options of the queue>
//	}
func (r *Redis) ParseListen(d *caddyfile.Dispenser) error {
	start := d.Token()
	l := new(Listen)
	if d.NextArg() {
		l.Address = d.Val()
	}
	if d.NextArg() {
		return d.ArgErr()
	}
	if err := parseBlock(d, &l.User, &l.Password, &l.Queue); err != nil {
		return err
	}
	r.Listen = l
	return option.At(start, (&Redis{Listen: l}).Validate(false))
}

// ParseConnect parses a line and its block:
//
//	redis connect <url> {
//	    user     <name> <password>
//	    password <password>
//	    <options of the queue>
//	}
func (r *Redis) ParseConnect(d *caddyfile.Dispenser) error {
	start := d.Token()
	c := new(Connect)
	if !d.NextArg() {
		return d.Err("redis connect takes the URL of a server, such as redis://127.0.0.1:6379")
	}
	c.URL = d.Val()
	if d.NextArg() {
		return d.ArgErr()
	}
	if err := parseBlock(d, &c.User, &c.Password, &c.Queue); err != nil {
		return err
	}
	r.Connect = c
	return option.At(start, (&Redis{Connect: c}).Validate(false))
}

// parseBlock parses the options that both have:
//
//	channels <names...>
//	key      <prefix>
//	main     <channel>
//	pickle   on|off
//	publish  <patterns...>
func parseBlock(d *caddyfile.Dispenser, user, password *string, q *Queue) error {
	return option.Block(d, map[string]option.Parser{
		"user":     brokermodule.Login("password", password, brokermodule.Args("<name> <password>", user, password)),
		"password": brokermodule.Login("user", password, brokermodule.Args("<password>", password)),
		"channels": option.Words(&q.Channels),
		"key":      option.Word(&q.Key),
		"main":     option.Word(&q.Main),
		"pickle":   option.OnOff(&q.Pickle),
		"publish":  option.Words(&q.Publish),
	})
}
