package redis

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
	"github.com/caddy-broadcast/caddy-broadcast/internal/envelope"
	"github.com/redis/rueidis"
)

// maxReads is how many callers read at the same time. Others wait.
const maxReads = 64

// chunk is what was read of a channel.
type chunk struct {
	entries  []broker.Entry
	all      bool   // there is no more
	complete bool   // nothing is missing of it
	next     uint64 // the position after the last one
}

// question is a channel to read, after a position.
type question struct {
	channel string
	after   uint64
}

// read reads channels, until so many entries or about so many bytes are there. It answers at least one question.
func (s *session) read(ctx context.Context, questions []question, n, bytes int, direction string) (chunks []chunk, err error) {
	args := append(s.args(4+3*len(questions)), strconv.Itoa(bytes), strconv.Itoa(n), direction, flag(s.evicts.Load()))
	for _, q := range questions {
		args = append(args, q.channel, strconv.FormatUint(q.after, 10), strconv.FormatUint(q.after+1, 10))
	}
	m, err := s.eval(ctx, s.client, readScript, args)
	if err != nil {
		return nil, err
	}
	if text, err := m.ToString(); err == nil && text == "F" {
		s.fail("epoch", errFence)
		return nil, errFence
	}
	answers, err := m.ToArray()
	if err != nil {
		return nil, err
	}
	if len(answers) == 0 || len(answers) > len(questions) {
		return nil, errAnswer
	}
	for i, a := range answers {
		c, err := readChunk(a, questions[i])
		if err != nil {
			return nil, err
		}
		chunks = append(chunks, c)
	}
	return chunks, nil
}

var errAnswer = errors.New("the server's answer is not that of the script")

// readChunk reads the answer to one question.
func readChunk(m rueidis.RedisMessage, q question) (c chunk, err error) {
	fields, err := m.ToArray()
	if err != nil || len(fields) != 3 {
		return c, errAnswer
	}
	all, err1 := fields[0].AsInt64()
	complete, err2 := fields[1].AsInt64()
	list, err3 := fields[2].AsStrSlice()
	if err := errors.Join(err1, err2, err3); err != nil || len(list)%2 != 0 {
		return c, errAnswer
	}
	c.all, c.complete, c.next = all == 1, complete == 1, q.after
	for i := 0; i < len(list); i += 2 {
		e := broker.Entry{Channel: q.channel}
		var ok bool
		if e.Seq, e.Time, ok = parseID(list[i]); !ok {
			continue // nobody who follows the rules has made it
		}
		c.next = max(c.next, e.Seq)
		if envelope.Decode([]byte(list[i+1]), &e) {
			c.entries = append(c.entries, e)
		}
	}
	return c, nil
}

// Read implements broker.Log.
func (l *log) Read(ctx context.Context, channel string, after uint64, n, bytes int) (es []broker.Entry, complete bool, err error) {
	err = l.reading(ctx, func(ctx context.Context, s *session) error {
		q := question{channel, after}
		complete = true
		for {
			chunks, err := s.read(ctx, []question{q}, min(n-len(es), maxAnswer), min(bytes, maxAnswerBytes), "+")
			if err != nil {
				return err
			}
			c := chunks[0]
			for i := range c.entries {
				bytes -= len(c.entries[i].Data)
			}
			es = append(es, c.entries...)
			// Of each part: something may have been removed before the next one was read.
			complete = complete && c.complete
			if c.all || len(es) >= n || bytes <= 0 || c.next == q.after {
				complete = complete && c.all
				return nil
			}
			q.after = c.next
		}
	})
	if err != nil {
		return nil, false, err
	}
	return es, complete, nil
}

// The limits of one answer, so that a reader does not hold up the server.
const (
	maxAnswer      = 1000
	maxAnswerBytes = 1 << 20
)

// Last implements broker.Log.
func (l *log) Last(ctx context.Context, channel string, n, bytes int) (es []broker.Entry, err error) {
	if n <= 0 {
		return nil, nil
	}
	err = l.reading(ctx, func(ctx context.Context, s *session) error {
		chunks, err := s.read(ctx, []question{{channel, 0}}, n, bytes, "-")
		if err == nil {
			es = chunks[0].entries
			slices.Reverse(es)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return es, nil
}

// reading does something with a session, whose answer is of the epoch that the Sink was told: rule 8 of package broker.
func (l *log) reading(ctx context.Context, do func(context.Context, *session) error) error {
	if l.closed.Load() {
		return broker.ErrClosed
	}
	select {
	case l.reads <- struct{}{}:
		defer func() { <-l.reads }()
	case <-ctx.Done():
		return ctx.Err()
	case <-l.done:
		return broker.ErrClosed
	}
	s := l.used()
	if s == nil {
		return broker.ErrDown
	}
	told := l.told()
	limited, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	err := do(limited, s)
	switch {
	case ctx.Err() != nil && err != nil:
		return ctx.Err()
	case l.closed.Load():
		return broker.ErrClosed
	case err != nil:
		if limited.Err() != nil || ends(err) {
			s.fail("reconnect", err)
		}
		return wrapDown(err)
	case s.number != told || l.told() != told:
		return fmt.Errorf("%w (another epoch began)", broker.ErrDown)
	}
	return nil
}
