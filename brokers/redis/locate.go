package redis

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/redis/rueidis"
)

// maxMoved is how many times in a row a cluster may redirect the client.
const maxMoved = 5

// begin finds the server that has the log, and begins a session with it. Each attempt begins with another address.
func (l *log) begin(ctx context.Context) (s *session, err error) {
	l.attempts++
	servers := l.config.Servers
	address := servers[l.attempts%len(servers)]
	if l.config.Master != "" {
		if address, err = l.master(ctx); err != nil {
			return nil, err
		}
	}
	for range maxMoved {
		l.generation++
		s, err = l.dial(ctx, address, l.generation)
		to, moved := movedTo(err, address)
		if !l.config.Cluster || !moved {
			return s, err
		}
		address = to
	}
	return nil, err
}

// movedTo returns the address that a cluster's node says that the log is at. One without a host is on the same host.
func movedTo(err error, from string) (string, bool) {
	reply, ok := rueidis.IsRedisErr(err)
	if !ok || !isReply(err, "MOVED") {
		return "", false
	}
	return moved(reply.Error(), from)
}

// moved reads the text of such an error.
func moved(text, from string) (string, bool) {
	words := strings.Fields(text)
	for i, word := range words {
		if strings.TrimPrefix(word, "-") != "MOVED" || i+2 >= len(words) {
			continue
		}
		to := words[i+2]
		colon := strings.LastIndexByte(to, ':')
		if colon < 0 {
			return "", false
		}
		// An IPv6 address comes without brackets.
		host, port := strings.Trim(to[:colon], "[]"), to[colon+1:]
		if host == "" {
			var err error
			if host, _, err = net.SplitHostPort(from); err != nil {
				return "", false
			}
		}
		return net.JoinHostPort(host, port), true
	}
	return "", false
}

// master asks the Sentinels for the address of the server. If a Sentinel is out of date, the first script fails, because it
// writes. So the next attempt begins with another Sentinel.
func (l *log) master(ctx context.Context) (string, error) {
	servers := l.config.Servers
	var errs []error
	for i := range servers {
		address, err := l.askSentinel(ctx, servers[(l.attempts+i)%len(servers)])
		if err == nil {
			return address, nil
		}
		errs = append(errs, err)
	}
	return "", fmt.Errorf("no Sentinel knows %q: %w", l.config.Master, errors.Join(errs...))
}

func (l *log) askSentinel(ctx context.Context, sentinel string) (string, error) {
	// Each Sentinel has its own timeout, so that one that does not answer leaves time for the others.
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	// A session that only asks: it is dialled in the same way, and also not again.
	s := &session{l: l, address: sentinel, over: make(chan struct{})}
	options := s.options()
	options.Username, options.Password, options.AuthCredentialsFn = l.config.SentinelUser, l.config.SentinelPassword, nil
	options.SelectDB = 0
	stop := context.AfterFunc(ctx, func() { s.fail("reconnect", ctx.Err()) })
	defer stop()
	var err error
	if s.client, err = rueidis.NewClient(options); err != nil {
		return "", err
	}
	defer s.close()
	place, err := s.client.Do(ctx, s.client.B().SentinelGetMasterAddrByName().Master(l.config.Master).Build()).AsStrSlice()
	if err != nil && !rueidis.IsRedisNil(err) {
		return "", err
	}
	if len(place) != 2 {
		return "", fmt.Errorf("the Sentinel %s does not know it", sentinel)
	}
	return net.JoinHostPort(place[0], place[1]), nil
}
