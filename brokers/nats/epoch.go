package nats

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nuid"
	"go.uber.org/zap"
)

// The epoch is in the stream's metadata from its creation. If the stream loses what it had, as a server does whose machine
// dies, then it gives positions to new messages that others had. A node that sees this changes the epoch: by an entry on a
// subject of its own, which expects to come after the last such entry, so that one node succeeds and the others find its
// entry; and in the metadata, since entries do not stay.

func newEpoch() string { return nuid.Next()[14:] }

// message is the leader's answer for one message.
type message struct {
	Message struct {
		Seq  uint64    `json:"seq"`
		Data []byte    `json:"data"`
		Time time.Time `json:"time"`
	} `json:"message"`
}

// leaderGet asks the leader for one message. ok is false if there is none.
func (l *log) leaderGet(ctx context.Context, request getRequest) (m message, ok bool, err error) {
	err = l.api(ctx, "STREAM.MSG.GET."+l.config.Stream, request, &m)
	if isCode(err, codeNoMessage) {
		return m, false, nil
	}
	return m, err == nil, err
}

// settleEpoch returns the epoch of the stream, after it has changed it if the stream lost something that this node had.
func (l *log) settleEpoch(ctx context.Context, info *streamInfo) (string, error) {
	epoch, at, err := l.readEpoch(ctx, info)
	if err != nil {
		return "", err
	}
	rolledBack := false
	if epoch != "" {
		if rolledBack, err = l.rolledBack(ctx, epoch); err != nil || !rolledBack {
			return epoch, err
		}
	}
	// I7: before anything of the stream is delivered.
	mine := newEpoch()
	a, err := l.publisher.ask(&natsgo.Msg{Subject: l.store + epochName, Data: []byte(mine), Header: natsgo.Header{
		natsgo.ExpectedLastSubjSeqHdr: {strconv.FormatUint(at, 10)},
	}})
	switch {
	case err != nil:
		return "", err
	case a.Error != nil && (a.Error.ErrCode == codeWrongLast || a.Error.ErrCode == codeWrongLastPlain):
		epoch, _, err = l.readEpoch(ctx, info) // another node was faster
		return epoch, err
	case a.Error != nil:
		return "", a.Error
	}
	if rolledBack {
		l.logger().Error("the broker has lost messages: positions begin anew, and all clients get a gap",
			zap.String("stream", l.config.Stream), zap.String("epoch", epoch), zap.String("new_epoch", mine))
	}
	want := info.Config
	metadata := map[string]string{metadataVersion: "1"}
	for key, value := range want.Metadata {
		metadata[key] = value
	}
	metadata[metadataEpoch] = mine
	want.Metadata = metadata
	var updated streamInfo
	if err := l.api(ctx, "STREAM.UPDATE."+l.config.Stream, want, &updated); err != nil {
		l.logger().Error("the new epoch cannot be written to the stream's metadata", zap.Error(err))
	}
	return mine, nil
}

// readEpoch returns the epoch, or "" if the stream has none, and where the entry is that has changed it, or 0.
func (l *log) readEpoch(ctx context.Context, info *streamInfo) (epoch string, at uint64, err error) {
	m, ok, err := l.leaderGet(ctx, getRequest{LastBy: l.store + epochName})
	if err != nil {
		return "", 0, err
	}
	if !ok {
		return info.Config.Metadata[metadataEpoch], 0, nil
	}
	epoch = string(m.Message.Data)
	if epoch == "" || len(epoch) > 32 {
		return "", 0, fmt.Errorf("the entry at %d is no epoch: somebody else publishes on %s", m.Message.Seq, l.store+epochName)
	}
	return epoch, m.Message.Seq, nil
}

// rolledBack tells whether the stream has lost what this node has had of the same epoch: it gives a position that is taken
// to a tick, or has another tick at a known position.
func (l *log) rolledBack(ctx context.Context, epoch string) (bool, error) {
	var had, tick uint64
	var bytes string
	l.inReceiver(func() {
		if r := &l.receiver; r.began && r.epoch == epoch {
			had, tick, bytes = r.watermark, r.tick, r.tickBytes
		}
	})
	// It was given nothing of this epoch, so it cannot know, and no client of it has a position that could be wrong.
	if had == 0 {
		return false, nil
	}
	// It is not enough that the leader says how far it is: who became leader a moment ago may not know yet.
	at, err := l.mark(ctx)
	if err != nil || at <= had {
		return err == nil, err
	}
	if bytes == "" {
		return false, nil
	}
	m, ok, err := l.leaderGet(ctx, getRequest{Seq: tick})
	return ok && string(m.Message.Data) != bytes, err
}

// checked returns a number of the epoch that the Sink was told. It is another one when that changes, and 0 as long as it is
// not known whether a new connection leads to the same stream as before.
func (l *log) checked() uint64 {
	l.publisher.mu.Lock()
	defer l.publisher.mu.Unlock()
	if l.publisher.generation != l.generation.Load() {
		return 0
	}
	return l.epochs.Load()
}

// sameEpoch makes what was read an error, if it may be of another epoch than the Sink had been told.
func (l *log) sameEpoch(began uint64, err *error) {
	if *err == nil && (began == 0 || l.checked() != began) {
		*err = fmt.Errorf("%w: the stream may be another one", broker.ErrDown)
	}
}
