package nats

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
	"github.com/caddy-broadcast/caddy-broadcast/internal/brokerlog"
	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nuid"
	"go.uber.org/zap"
)

// The epoch is in the stream's metadata from its creation. If the stream loses what it had, as a server does whose machine
// dies, then it gives positions to new messages that others had. A node that sees this changes the epoch: by an entry on a
// subject of its own, which expects to come after the last such entry, so that one node succeeds and the others find its
// entry; and in the metadata, since entries do not stay.

// epochSize is the length of the random part of an epoch. After it comes how many there were before, if there were any, so
// that of two epochs it is known which one was later. What a server has lost may be the change to the last one.
const epochSize = 8

// newEpoch returns an epoch that comes after some others. It is short, because it is a part of each ID that clients get. It
// begins with characters of a NUID that start at a random number, so that two nodes do not make the same.
func newEpoch(before uint64) string {
	epoch := nuid.Next()[14:]
	if before > 0 {
		epoch += strconv.FormatUint(before, 36)
	}
	return epoch
}

// epochsBefore returns how many epochs there were before one. Of one that somebody else made it is 0.
func epochsBefore(epoch string) uint64 {
	n, err := strconv.ParseUint(epoch[min(epochSize, len(epoch)):], 36, 64)
	if err != nil {
		return 0
	}
	return n
}

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
	// Only the leader answers this one (jsMsgGetRequest in nats-server 2.15.2).
	err = l.api(ctx, "STREAM.MSG.GET."+l.config.Stream, request, &m)
	if isCode(err, codeNoMessage) {
		return m, false, nil
	}
	return m, err == nil, err
}

// settleEpoch returns the epoch of the stream, after it has changed it if the stream lost something that this node had.
func (l *log) settleEpoch(ctx context.Context, info *streamInfo) (string, error) {
	epoch, at, lost, err := l.readEpoch(ctx, info)
	if err != nil {
		return "", err
	}
	// This node may know of a later epoch. The entry of one that could not be noted may be gone, too.
	later := max(epochsBefore(l.knownEpoch()), l.keeper.epochs)
	rolledBack := lost || later > epochsBefore(epoch)
	l.keeper.epochs = max(later, epochsBefore(epoch))
	if epoch != "" && !rolledBack {
		if rolledBack, err = l.rolledBack(ctx, epoch); err != nil {
			return "", err
		}
		if !rolledBack {
			return epoch, l.noteEpoch(ctx, info, epoch)
		}
	}
	// I7: before anything of the stream is delivered.
	mine := newEpoch(l.keeper.epochs + 1)
	a, err := l.publisher.ask(&natsgo.Msg{Subject: l.store + epochName, Data: []byte(mine), Header: natsgo.Header{
		natsgo.ExpectedLastSubjSeqHdr: {strconv.FormatUint(at, 10)},
	}})
	switch {
	case err != nil:
		return "", err
	case a.Error != nil && (a.Error.ErrCode == codeWrongLast || a.Error.ErrCode == codeWrongLastPlain):
		if info, err = l.info(ctx, ""); err != nil { // another node was faster
			return "", err
		}
		return l.settleEpoch(ctx, info)
	case a.Error != nil:
		return "", a.Error
	}
	l.keeper.epochs++
	if rolledBack {
		l.logger().Error("the broker has lost messages: positions begin anew, and all clients get a gap",
			zap.String("stream", l.config.Stream), zap.String("epoch", epoch), zap.String("new_epoch", mine))
	}
	return mine, l.noteEpoch(ctx, info, mine)
}

// knownEpoch returns the epoch that the Sink was told last, or "".
func (l *log) knownEpoch() (epoch string) {
	l.inReceiver(func() { epoch = l.receiver.epoch })
	return epoch
}

// noteEpoch writes the epoch to the metadata. Without that the epoch before would be back when the entry expires, so it is an
// error if it cannot be written. If metadata have none, then another epoch begins when the entry expires, which is safe.
func (l *log) noteEpoch(ctx context.Context, info *streamInfo, epoch string) error {
	noted := info.Config.Metadata[metadataEpoch]
	if noted == epoch {
		return nil
	}
	_, err := l.update(ctx, info, withEpoch(info.Config, epoch))
	switch {
	case err != nil && noted == "":
		l.logger().Warn("the epoch cannot be written to the stream's metadata: all clients will get a gap when the stream has removed the entry that has it",
			zap.Error(err))
	case err != nil:
		return fmt.Errorf("the stream %s has lost messages, and its new epoch cannot be written to its metadata: %w", l.config.Stream, err)
	}
	return nil
}

// epochDiffers tells whether the epoch is another one than this node has, or not the one in the metadata: a node that died may
// have undone what another one wrote there.
func (l *log) epochDiffers(ctx context.Context) bool {
	info, err := l.info(ctx, "")
	if err != nil {
		return false
	}
	epoch, _, lost, err := l.readEpoch(ctx, info)
	if err != nil || epoch == "" {
		return false
	}
	noted := info.Config.Metadata[metadataEpoch]
	return lost || epoch != l.knownEpoch() || noted != "" && noted != epoch
}

// withEpoch returns a configuration whose metadata have an epoch, and all else as it was.
func withEpoch(c streamConfig, epoch string) streamConfig {
	metadata := map[string]string{metadataVersion: "1"}
	for key, value := range c.Metadata {
		metadata[key] = value
	}
	metadata[metadataEpoch] = epoch
	c.Metadata = metadata
	return c
}

// readEpoch returns the epoch, or "" if the stream has none, and where the last entry is that has changed it, or 0. lost says
// that a later such entry was lost, which the metadata know.
func (l *log) readEpoch(ctx context.Context, info *streamInfo) (epoch string, at uint64, lost bool, err error) {
	m, ok, err := l.leaderGet(ctx, getRequest{LastBy: l.store + epochName})
	if err != nil {
		return "", 0, false, err
	}
	noted := info.Config.Metadata[metadataEpoch]
	if !ok {
		return noted, 0, false, nil
	}
	epoch = string(m.Message.Data)
	if !brokerlog.IsEpoch(epoch) {
		return "", 0, false, fmt.Errorf("the entry at %d is no epoch: somebody else publishes on %s", m.Message.Seq, l.store+epochName)
	}
	if epochsBefore(noted) > epochsBefore(epoch) {
		return noted, m.Message.Seq, true, nil
	}
	return epoch, m.Message.Seq, false, nil
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
	// It has seen no tick of this epoch yet, so there is nothing to compare.
	if bytes == "" {
		return false, nil
	}
	// A stream that has lost entries and grown beyond the position again has another message there. If the tick is gone by
	// the stream's limits then nothing speaks against it.
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
