package redis

import (
	"cmp"
	"errors"
	"net"
	"net/url"
	"path"
	"strconv"
	"strings"
)

// address is a parsed URL. Errors of the functions that parse it are the second half of a sentence about the URL. They do
// not quote it, because it may have a password.
type address struct {
	servers   []string
	master    string
	cluster   bool
	encrypted bool
	db        int
	login     login
}

const defaultPort, defaultSentinelPort = "6379", "26379"

var errURL = errors.New("is not valid: it must be such as redis://host:6379/0; a user and a password in it need percent-encoding")

// parseURL parses a URL without placeholders. It is ours because rueidis.ParseURL knows neither Sentinels nor clusters by their
// schemes, and because net/url rejects several hosts with ports since Go 1.26.
func parseURL(text string) (at address, err error) {
	scheme, rest, ok := strings.Cut(text, "://")
	if !ok {
		return at, errURL
	}
	kind := strings.TrimPrefix(scheme, "rediss")
	at.encrypted = kind != scheme
	if !at.encrypted {
		kind = strings.TrimPrefix(scheme, "redis")
	}
	switch {
	case scheme == "unix", scheme == "redis+unix":
		return parseUnix(rest)
	case kind == "", kind == "+sentinel", kind == "+cluster":
	default:
		return at, errors.New("has a scheme that is none of redis, rediss, unix, redis+unix, redis+sentinel, rediss+sentinel, redis+cluster and rediss+cluster")
	}
	hosts, where := rest, ""
	if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		hosts, where = rest[:i], rest[i:]
	}
	if i := strings.LastIndexByte(hosts, '@'); i >= 0 {
		u, err := url.Parse("redis://" + hosts[:i] + "@host")
		if err != nil {
			return at, errURL
		}
		at.login.user = u.User.Username()
		at.login.password, _ = u.User.Password()
		hosts = hosts[i+1:]
	}
	port := defaultPort
	if kind == "+sentinel" {
		port = defaultSentinelPort
	}
	for host := range strings.SplitSeq(hosts, ",") {
		u, err := url.Parse("redis://" + host)
		if err != nil || u.Hostname() == "" {
			return at, errURL
		}
		at.servers = append(at.servers, net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), port)))
	}
	if kind == "" && len(at.servers) > 1 {
		return at, errors.New("has several servers, which only redis+sentinel and redis+cluster can have")
	}
	at.cluster = kind == "+cluster"
	return at, at.parsePath(where, kind)
}

// parsePath parses what follows the hosts: the number of a database, after the name of the master if they are Sentinels.
func (at *address) parsePath(text, kind string) error {
	u, err := url.Parse(text)
	if err != nil {
		return errURL
	}
	if u.RawQuery != "" || u.Fragment != "" {
		return errors.New("has more than a login, a host, a port and a database")
	}
	db := strings.TrimPrefix(u.Path, "/")
	if kind == "+sentinel" {
		if at.master, db, _ = strings.Cut(db, "/"); at.master == "" {
			return errors.New("lacks the name of the master: it must be such as redis+sentinel://s1:26379,s2:26379/mymaster")
		}
	}
	if err := at.parseDB(db); err != nil {
		return err
	}
	if at.cluster && at.db != 0 {
		return errors.New("has the number of a database, and a Redis Cluster has only 0")
	}
	return nil
}

// parseUnix parses user:password@/path?db=1, where the login and the database may be missing.
func parseUnix(rest string) (at address, err error) {
	u, err := url.Parse("unix://" + rest)
	if err != nil || u.Host != "" || !path.IsAbs(u.Path) {
		return at, errors.New("is not valid: it must be such as unix:///run/redis/redis.sock")
	}
	at.servers = []string{u.Path}
	at.login.user = u.User.Username()
	at.login.password, _ = u.User.Password()
	q := u.Query()
	db := q.Get("db")
	if q.Del("db"); len(q) > 0 || u.Fragment != "" {
		return at, errors.New("has more than a login, a path and db")
	}
	return at, at.parseDB(db)
}

// parseDB parses the number of a database. How many there are is the server's own option.
func (at *address) parseDB(text string) (err error) {
	if text == "" {
		return nil
	}
	if at.db, err = strconv.Atoi(text); err != nil || at.db < 0 {
		return errors.New("has something else where the number of a database is expected, such as 0")
	}
	return nil
}
