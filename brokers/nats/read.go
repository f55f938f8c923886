package nats

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
	natsgo "github.com/nats-io/nats.go"
)

// Entries are read by direct get, which any replica answers. A replica may lag behind: its answers are right as of a position
// that is over. So "there is nothing" counts only together with the position of the replica that says it.

// errLagging says that the replica that answered does not have everything yet.
var errLagging = errors.New("the replica that answered lags behind")

// getRequest is that of direct get.
type getRequest struct {
	Seq       uint64   `json:"seq,omitempty"`
	NextBy    string   `json:"next_by_subj,omitempty"`
	LastBy    string   `json:"last_by_subj,omitempty"`
	MultiLast []string `json:"multi_last,omitempty"`
	Batch     int      `json:"batch,omitempty"`
}

// mark returns a position that is not before any entry that was stored before the call.
func (l *log) mark(ctx context.Context) (uint64, error) {
	type result struct {
		seq uint64
		err error
	}
	ch := make(chan result, 1)
	if !l.conn.IsConnected() {
		return 0, broker.ErrDown
	}
	l.marks.join(waiter{done: func(seq uint64, err error) { ch <- result{seq, err} }, deadline: time.Now().Add(l.config.PublishTimeout)})
	select {
	case r := <-ch:
		return r.seq, r.err
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// found is a message of the stream.
type found struct {
	seq  uint64
	time int64
	subj string
	data []byte
}

func foundIn(m *natsgo.Msg) (f found, err error) {
	f.subj, f.data = last(m.Header, "Nats-Subject"), m.Data
	if f.seq, err = strconv.ParseUint(last(m.Header, "Nats-Sequence"), 10, 64); err != nil {
		return f, fmt.Errorf("answer of the broker: %w", err)
	}
	at, err := time.Parse(time.RFC3339Nano, last(m.Header, "Nats-Time-Stamp"))
	f.time = at.UnixMilli()
	return f, err
}

// get asks for one message. ok is false if the replica that answers has none.
func (l *log) get(ctx context.Context, request getRequest) (f found, ok bool, err error) {
	body, _ := json.Marshal(request)
	err = l.ask(ctx, "$JS.API.DIRECT.GET."+l.config.Stream, body, 1, func(m *natsgo.Msg) (bool, error) {
		switch status := m.Header.Get("Status"); status {
		case "":
			ok = true
			f, err = foundIn(m)
			return false, err
		case "404":
			return false, nil
		case "503":
			return false, broker.ErrDown
		default:
			return false, fmt.Errorf("direct get: %s %s", status, m.Header.Get("Description"))
		}
	})
	return f, ok && err == nil, err
}

// lasts returns the newest messages of subjects, if they are not before seq, from one replica that has everything up to a
// position, which is that of a tick. It asks again until one answers.
func (l *log) lasts(ctx context.Context, subjects []string, seq, upTo uint64) (fs []found, err error) {
	request := getRequest{Seq: seq, MultiLast: append([]string{l.store + tickName}, subjects...)}
	body, _ := json.Marshal(request)
	for wait := time.Millisecond; ; wait = min(2*wait, 100*time.Millisecond) {
		fs, err = l.lastsOnce(ctx, body, len(request.MultiLast), upTo)
		if !errors.Is(err, errLagging) {
			return fs, err
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil, err
		}
	}
}

func (l *log) lastsOnce(ctx context.Context, body []byte, n int, upTo uint64) (fs []found, err error) {
	return fs, l.ask(ctx, "$JS.API.DIRECT.GET."+l.config.Stream, body, n+1, func(m *natsgo.Msg) (bool, error) {
		switch status := m.Header.Get("Status"); status {
		case "":
			f, err := foundIn(m)
			if f.subj != l.store+tickName {
				fs = append(fs, f)
			}
			return true, err
		case "204": // the end
			if at, err := strconv.ParseUint(m.Header.Get("Nats-UpTo-Sequence"), 10, 64); err != nil || at < upTo {
				return false, errLagging
			}
			return false, nil
		case "404": // not even the tick
			return false, errLagging
		case "503":
			return false, broker.ErrDown
		default:
			return false, fmt.Errorf("direct get: %s %s", status, m.Header.Get("Description"))
		}
	})
}

// walk calls each for the messages of a subject after a position, up to one that is known to exist, until it returns false.
// One after the other: a request for several has the server count what is pending, which took it 3.4 ms at 100,000 messages.
func (l *log) walk(ctx context.Context, subject string, after, to uint64, each func(found) bool) error {
	for after < to {
		f, ok, err := l.get(ctx, getRequest{Seq: after + 1, NextBy: subject})
		if err != nil {
			return err
		}
		if !ok || f.seq > to && after+1 < to {
			// Either this replica lags, or the messages are gone meanwhile. The newest of a subject stays longest.
			if ok {
				return nil
			}
			if strings.HasSuffix(subject, ">") { // it lags, and there is too much to ask for the newest of each
				select {
				case <-time.After(5 * time.Millisecond):
					continue
				case <-ctx.Done():
					return ctx.Err()
				}
			}
			fs, err := l.lasts(ctx, []string{subject}, 0, to)
			if err != nil {
				return err
			}
			if len(fs) == 0 || fs[0].seq <= after {
				return nil
			}
			continue
		}
		if f.seq > to {
			return nil
		}
		after = f.seq
		if !each(f) {
			return nil
		}
	}
	return nil
}

func (l *log) entryOf(channel string, f found) (e broker.Entry, ok bool) {
	e = broker.Entry{Seq: f.seq, Time: f.time, Channel: channel}
	return e, decode(f.data, &e)
}

func (l *log) Read(ctx context.Context, channel string, after uint64, n, bytes int) ([]broker.Entry, bool, error) {
	if l.closed.Load() {
		return nil, false, broker.ErrClosed
	}
	mark, err := l.mark(ctx)
	if err != nil {
		return nil, false, err
	}
	subject := l.store + encodeChannel(channel)
	fs, err := l.lasts(ctx, []string{subject}, 0, mark)
	if err != nil {
		return nil, false, wrapDown(err)
	}
	var es []broker.Entry
	full, kept := false, 0
	if len(fs) > 0 && fs[0].seq > after {
		err = l.walk(ctx, subject, after, fs[0].seq, func(f found) bool {
			if len(es) > 0 && (len(es) >= n || bytes < len(f.data)) || n <= 0 {
				full = true
				return false
			}
			kept++
			bytes -= len(f.data)
			if e, ok := l.entryOf(channel, f); ok {
				es = append(es, e)
			}
			return true
		})
		if err != nil {
			return nil, false, wrapDown(err)
		}
	}
	if full {
		return es, false, nil
	}
	complete, err := l.complete(ctx, subject, after)
	return es, complete, wrapDown(err)
}

// complete tells whether the stream still has each entry of a subject after a position. Messages of a subject go oldest first,
// so it is so if an older one is there, or if none went because of the limits: of the subject, or of the stream. It is asked
// after reading, and of the leader: what is there now was there before.
func (l *log) complete(ctx context.Context, subject string, after uint64) (bool, error) {
	oldest, ok, err := l.leaderGet(ctx, getRequest{Seq: 1, NextBy: subject})
	if err != nil || ok && oldest.Message.Seq <= after {
		return ok, err
	}
	info, err := l.info(ctx, subject)
	if err != nil {
		return false, err
	}
	return int64(info.State.Subjects[subject]) < info.Config.MaxPerSubj && info.State.FirstSeq <= after+1, nil
}

func (l *log) Last(ctx context.Context, channel string, n, bytes int) ([]broker.Entry, error) {
	if l.closed.Load() {
		return nil, broker.ErrClosed
	}
	mark, err := l.mark(ctx)
	if err != nil {
		return nil, err
	}
	subject := l.store + encodeChannel(channel)
	fs, err := l.lasts(ctx, []string{subject}, 0, mark)
	if err != nil || len(fs) == 0 {
		return nil, wrapDown(err)
	}
	var es []broker.Entry
	if n == 1 {
		if e, ok := l.entryOf(channel, fs[0]); ok {
			return []broker.Entry{e}, nil
		}
	}
	err = l.walk(ctx, subject, 0, fs[0].seq, func(f found) bool {
		if e, ok := l.entryOf(channel, f); ok {
			es = append(es, e)
		}
		if len(es) > n {
			es = es[len(es)-n:]
		}
		return true
	})
	from := len(es)
	for from > 0 && (from == len(es) || bytes >= len(es[from-1].Data)) {
		from--
		bytes -= len(es[from].Data)
	}
	return es[from:], wrapDown(err)
}

// wrapDown makes the errors of requests those of the contract.
func wrapDown(err error) error {
	if err == nil || errors.Is(err, broker.ErrClosed) || errors.Is(err, broker.ErrDown) || errors.Is(err, context.Canceled) {
		return err
	}
	return fmt.Errorf("%w (%w)", broker.ErrDown, err)
}
