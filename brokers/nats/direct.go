package nats

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
	natsgo "github.com/nats-io/nats.go"
)

// Entries are read by direct get, which any replica answers. A replica may lag behind: its answers are right as of a position
// that is over. So "there is nothing" counts only together with the position of the replica that says it.

// errLagging says that the replica that answered does not have everything yet.
var errLagging = errors.New("the replica that answered lags behind")

// getRequest is that of direct get.
// It is JSApiMsgGetRequest in jetstream_api.go of nats-server 2.15.2, which the leader's STREAM.MSG.GET takes too.
type getRequest struct {
	Seq       uint64   `json:"seq,omitempty"`
	NextBy    string   `json:"next_by_subj,omitempty"`
	LastBy    string   `json:"last_by_subj,omitempty"`
	MultiLast []string `json:"multi_last,omitempty"`
	UpTo      uint64   `json:"up_to_seq,omitempty"`
	Batch     int      `json:"batch,omitempty"`
	MaxBytes  int      `json:"max_bytes,omitempty"`
}

// found is a message of the stream.
type found struct {
	seq  uint64
	time int64
	subj string
	data []byte
}

// foundIn reads a message of an answer. Subject, position and time are in headers, since the subject of the answer is the
// inbox.
func foundIn(m *natsgo.Msg) (f found, err error) {
	f.subj, f.data = last(m.Header, "Nats-Subject"), m.Data
	if f.seq, err = strconv.ParseUint(last(m.Header, "Nats-Sequence"), 10, 64); err != nil {
		return f, fmt.Errorf("answer of the broker: %w", err)
	}
	at, err := time.Parse(time.RFC3339Nano, last(m.Header, "Nats-Time-Stamp"))
	f.time = at.UnixMilli()
	return f, err
}

// direct sends a direct get. It calls each for the messages of the answer, until that returns false, and ends with how many
// more there are, and with the position that the answer is of, if that is said. ok is false if there are no messages.
func (l *log) direct(ctx context.Context, request getRequest, replies int, each func(found) bool) (pending int, upTo uint64, ok bool, err error) {
	body, _ := json.Marshal(request)
	several := request.Batch > 0 || len(request.MultiLast) > 0
	// One more reply than messages: an answer of several ends with one of the status 204.
	err = l.ask(ctx, "$JS.API.DIRECT.GET."+l.config.Stream, body, replies+1, func(m *natsgo.Msg) (bool, error) {
		switch status := m.Header.Get("Status"); status {
		case "":
			f, err := foundIn(m)
			if err != nil {
				return false, err
			}
			ok = true
			return each(f) && several, nil
		case "204": // the end
			ok = true
			pending, _ = strconv.Atoi(m.Header.Get("Nats-Num-Pending"))
			upTo, _ = strconv.ParseUint(m.Header.Get("Nats-UpTo-Sequence"), 10, 64)
			return false, nil
		// Nothing is there, or this replica does not have it yet. The caller has to tell the two apart.
		case "404":
			return false, nil
		case "503":
			return false, broker.ErrDown
		default:
			return false, fmt.Errorf("direct get: %s %s", status, m.Header.Get("Description"))
		}
	})
	return pending, upTo, ok, err
}

// maxAnswer is about how many bytes an answer with several messages may have.
// The server looks after each message whether it has sent as much (getDirectMulti in nats-server 2.15.2), so an answer
// exceeds it by one message at most.
const maxAnswer = 1 << 20

// lasts returns the newest messages of subjects, if they are not before seq, from replicas that have everything up to a
// position, which is that of a tick. It asks again until one answers. The data are only kept of those
// that are wanted.
func (l *log) lasts(ctx context.Context, subjects []string, seq, upTo uint64, wanted map[string]bool) (fs []found, err error) {
	// The tick's subject is among those that are asked for, because an answer without any message would not have the
	// position that it is of. The server has no minimum position for direct get that would do this: it is in ADR-53, but
	// not in the request of nats-server 2.15 (JSApiMsgGetRequest).
	request := getRequest{Seq: seq, MultiLast: append([]string{l.store + tickName}, subjects...), MaxBytes: maxAnswer}
	for wait := time.Millisecond; ; {
		end := request.Seq
		pending, at, ok, err := l.direct(ctx, request, len(request.MultiLast), func(f found) bool {
			end = f.seq + 1
			if !wanted[f.subj] {
				f.data = nil
			}
			if f.subj != l.store+tickName {
				fs = append(fs, f)
			}
			return true
		})
		switch {
		case err != nil:
			return nil, err
		case ok && at >= upTo && pending == 0:
			return fs, nil
		case ok && at >= upTo: // the answer was too large
			request.Seq = end
			continue
		}
		// Not even the tick is there, or the replica does not have everything. What it said may be out of date.
		fs, request.Seq = nil, seq
		select {
		case <-time.After(wait):
			wait = min(2*wait, 100*time.Millisecond)
		case <-ctx.Done():
			return nil, errLagging
		}
	}
}

// lastsUpTo returns the newest messages of subjects that are not after a position, from any replica.
func (l *log) lastsUpTo(ctx context.Context, request getRequest) (fs []found, err error) {
	_, _, _, err = l.direct(ctx, request, len(request.MultiLast), func(f found) bool {
		fs = append(fs, f)
		return true
	})
	return fs, err
}

// walk reads the messages of a subject after a position, oldest first, up to one that is known to exist. The server scans the
// messages of all subjects between two of this one, at about 30 ns each. If it is asked for several it also counts all that
// there are up to the end of the stream, at 50 ns each, but saves 60 µs for each request, here and there (measured with
// 10,000 channels of 10 messages).
type walk struct {
	l         *log
	subject   string
	after, to uint64
	end       uint64 // of the stream, about
	n, bytes  int    // what is wanted, about

	from uint64
	read int
}

// everything is the subject of a walk through all channels.
const everything = ">"

// maxBatchRead is the most that a walk asks for at once. What comes when each has said that it has enough is dropped, so it
// is not more.
const maxBatchRead = 256

// batch returns for how many messages to ask at once.
func (w *walk) batch() int {
	expected := 1.0
	if w.read > 0 {
		expected = float64(w.read) * float64(w.to-w.after) / float64(w.after-w.from)
	}
	// To count 1000 messages takes about as long as one more request does: 50 and 60 µs.
	if w.subject != everything && expected*1000 < float64(w.end-w.after) {
		return 1
	}
	return max(1, min(w.n-w.read+1, maxBatchRead))
}

// run calls each for the messages, until it returns false.
func (w *walk) run(ctx context.Context, each func(found) bool) error {
	w.from, w.end = w.after, max(w.end, w.to)
	for more := true; more && w.after < w.to; {
		request := getRequest{Seq: w.after + 1, NextBy: w.subject}
		batch := w.batch()
		if batch > 1 {
			request.Batch, request.MaxBytes = batch, max(1, min(w.bytes, maxAnswer))
		}
		began := w.after
		_, _, _, err := w.l.direct(ctx, request, batch, func(f found) bool {
			if f.seq > w.to {
				w.after = w.to // what was up to it is gone meanwhile
				return false
			}
			w.after = f.seq
			w.read++
			w.bytes -= len(f.data)
			more = each(f)
			return more
		})
		if err != nil {
			return err
		}
		if began == w.after && more {
			if err := w.stuck(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// stuck is for an answer that has nothing: either the replica lags, or the messages are gone. The newest of a subject stays
// longest.
func (w *walk) stuck(ctx context.Context) error {
	if w.subject == everything { // there is too much to ask for the newest of each, and not all of it is gone
		select {
		case <-time.After(5 * time.Millisecond):
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	fs, err := w.l.lasts(ctx, []string{w.subject}, 0, w.to, nil)
	if err == nil && (len(fs) == 0 || fs[0].seq <= w.after) {
		w.after = w.to
	}
	return err
}
