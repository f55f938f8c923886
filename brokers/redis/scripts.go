package redis

import (
	"context"
	"crypto/sha1"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
	"github.com/redis/rueidis"
)

//go:embed scripts/begin.lua
var beginSource string

//go:embed scripts/publish.lua
var publishSource string

//go:embed scripts/tick.lua
var tickSource string

//go:embed scripts/read.lua
var readSource string

//go:embed scripts/count.lua
var countSource string

//go:embed scripts/counts.lua
var countsSource string

// Each script is atomic, and first compares the run and the epoch with those of the session. So a session that does not know
// that its server has lost something cannot store or read anything: rules 7 and 8 of package broker.
var (
	beginScript, publishScript = newScript(beginSource), newScript(publishSource)
	tickScript, readScript     = newScript(tickSource), newScript(readSource)
)

// Those for counts do not compare them, because no promise to clients depends on counts.
var countScript, countsScript = newScript(countSource), newScript(countsSource)

// script is one that the server runs.
type script struct{ source, sum string }

func newScript(source string) script {
	sum := sha1.Sum([]byte(source))
	return script{source, hex.EncodeToString(sum[:])}
}

// doer is a connection to the server.
type doer interface {
	Do(ctx context.Context, cmd rueidis.Completed) rueidis.RedisResult
	B() rueidis.Builder
}

// command returns the command that runs a script on the log, with what else it writes to if that is given.
func (s *session) command(d doer, name, text string, args, more []string) rueidis.Completed {
	return d.B().Arbitrary(name, text, strconv.Itoa(1+len(more))).Keys(s.l.meta).Keys(more...).Args(args...).Build()
}

// eval runs a script. One that the server does not know, as after SCRIPT FLUSH, is sent as a whole. That changes no order,
// since each connection runs one script at a time.
func (s *session) eval(ctx context.Context, d doer, sc script, args []string, more ...string) (rueidis.RedisMessage, error) {
	m, err := d.Do(ctx, s.command(d, "EVALSHA", sc.sum, args, more)).ToMessage()
	if isReply(err, "NOSCRIPT") {
		m, err = d.Do(ctx, s.command(d, "EVAL", sc.source, args, more)).ToMessage()
	}
	if rueidis.IsRedisNil(err) {
		return m, nil
	}
	return m, err
}

// isReply reports whether an error is the server's, with one of these words. In an error of a script they are not the first
// ones before Redis 7.
func isReply(err error, words ...string) bool {
	reply, ok := rueidis.IsRedisErr(err)
	if !ok || reply.IsNil() {
		return false
	}
	for _, word := range words {
		if text := reply.Error(); strings.HasPrefix(text, word+" ") || text == word || strings.Contains(text, "-"+word+" ") {
			return true
		}
	}
	return false
}

// ends reports whether a session is of no use after an error: the connection is lost, or the server is not the one that has
// the log. Otherwise the server has refused one command, and nothing of it was done.
func ends(err error) bool {
	reply, ok := rueidis.IsRedisErr(err)
	if !ok {
		return err != nil
	}
	return !reply.IsNil() && isReply(err, "READONLY", "MOVED", "ASK", "LOADING", "MASTERDOWN", "CLUSTERDOWN", "NOAUTH", "WRONGPASS")
}

// errFence says that the log is of another epoch, or on another server, than the session.
var errFence = errors.New("the server has lost the log, or it began again")

// wrapDown makes the errors of requests those of the contract. That the caller has left is no fault of the broker.
func wrapDown(err error) error {
	if err == nil || errors.Is(err, broker.ErrClosed) || errors.Is(err, broker.ErrDown) || errors.Is(err, context.Canceled) {
		return err
	}
	return fmt.Errorf("%w (%w)", broker.ErrDown, err)
}
