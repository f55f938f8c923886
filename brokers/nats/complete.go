package nats

import (
	"context"
	"fmt"
	"math/bits"
	"strconv"
	"strings"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"go.uber.org/zap"
)

// Whether something after a position P is missing of a channel. A stream removes messages in three ways, each oldest first:
//
//   - by number, those of one subject: as many as the limit stay, and they are after P, or one at or before P is there too;
//   - by age and by size, those of the whole stream. So if any message that is not after P+1 is there, none after it went.
//
// Ticks alone would not do as such a message, because only a few are kept. So there are anchors: messages without content that
// become rarer with their age, because each second one is on a subject of its own, each second of these on another one, and
// so on. At a distance T there is one within T/32 or anchorInterval.

const (
	anchorInterval = 15 * time.Second
	anchorLevels   = 20 // 2^20 intervals are half a year; the last level keeps as many as the others

	// skew is by how much replicas may differ in what they have removed by age, each by its own clock.
	skew = 10 * time.Second

	metadataLimit = "broadcast.limit"
)

// sendAnchor publishes the anchor of a time, which all nodes do, and the stream keeps one.
func (l *log) sendAnchor(now time.Time) {
	slot := uint64(now.Unix()) / uint64(anchorInterval/time.Second)
	level := min(bits.TrailingZeros64(slot), anchorLevels-1)
	l.conn.PublishMsg(&natsgo.Msg{
		Subject: l.store + anchorName + strconv.Itoa(level),
		Header:  natsgo.Header{natsgo.MsgIdHdr: {anchorName + strconv.FormatUint(slot, 36)}},
	})
}

// complete tells whether nothing is missing of a subject after a position, of which n messages up to end were read. The
// leader is asked, after reading: what is there now was there before.
func (l *log) complete(ctx context.Context, subject string, after, end uint64, n int) (bool, error) {
	info, ok, err := l.reaches(ctx, after)
	if err != nil || !ok {
		return false, err
	}
	limit := limitSince(info, after)
	if int64(n)+int64(info.State.LastSeq-min(end, info.State.LastSeq)) < limit {
		return true, nil // even if all that came since is of this subject
	}
	oldest, ok, err := l.leaderGet(ctx, getRequest{Seq: 1, NextBy: subject})
	if err != nil || ok && oldest.Message.Seq <= after {
		return ok, err
	}
	if info, err = l.info(ctx, subject); err != nil {
		return false, err
	}
	return int64(info.State.Subjects[subject]) < limit && info.State.FirstSeq <= after+1, nil
}

// reaches tells whether the stream has removed no message after a position by age or by size. For a subject that has no newer
// message that is all: by number the stream removes the oldest, and keeps at least one, so it would have one after the position.
func (l *log) reaches(ctx context.Context, after uint64) (info *streamInfo, ok bool, err error) {
	info, err = l.infos.ask(ctx, l, struct{}{})
	if err != nil || info.State.FirstSeq > after+1 {
		return info, false, err
	}
	ok, err = l.notAged(ctx, info, after)
	return info, ok, err
}

// notAged tells whether no replica can have removed messages after a position by age. The leader has not.
func (l *log) notAged(ctx context.Context, info *streamInfo, after uint64) (bool, error) {
	age := info.Config.MaxAge - skew
	if info.Config.MaxAge <= 0 || info.Config.Replicas <= 1 || info.Now.Sub(info.State.FirstTime) < age {
		return true, nil
	}
	var anchors []string
	for level := range anchorLevels {
		anchors = append(anchors, l.store+anchorName+strconv.Itoa(level))
	}
	// The newest of each level that is not after P+1. It does not matter if the replica lags.
	fs, err := l.lastsUpTo(ctx, getRequest{MultiLast: anchors, UpTo: after + 1})
	for _, f := range fs {
		if info.Now.Sub(time.UnixMilli(f.time)) < age {
			return true, err
		}
	}
	return false, err
}

// limitSince returns how many messages of a subject after a position were kept at any time, at least. The limit may have been
// raised, and what was removed before is gone. So metadata say since when the limit is what it is. Where they do not, it is
// what each stream keeps.
func limitSince(info *streamInfo, after uint64) int64 {
	limit, since, ok := notedLimit(info)
	if ok && limit == info.Config.MaxPerSubj && after+1 >= since {
		return limit
	}
	return keptMessages
}

// notedLimit is that of the metadata: "<limit>@<position from which on it holds>".
func notedLimit(info *streamInfo) (limit int64, since uint64, ok bool) {
	number, position, _ := strings.Cut(info.Config.Metadata[metadataLimit], "@")
	limit, err := strconv.ParseInt(number, 10, 64)
	if err != nil {
		return 0, 0, false
	}
	since, err = strconv.ParseUint(position, 10, 64)
	return limit, since, err == nil
}

// limitDelay is how long to wait until all replicas know a limit that was raised.
const limitDelay = 30 * time.Second

// noteLimit notes in the metadata that the stream's limit holds from now on.
func (l *log) noteLimit(ctx context.Context) {
	l.keeper.noted()
	info, err := l.info(ctx, "")
	if err == nil && l.config.Manage {
		if limit, _, ok := notedLimit(info); ok && limit == info.Config.MaxPerSubj {
			return
		}
		want := info.Config
		want.Metadata = withLimit(info.Config.Metadata, info.Config.MaxPerSubj, info.State.LastSeq+1)
		_, err = l.update(ctx, info, want)
	}
	if err != nil {
		l.logger().Warn("the broker's stream cannot be changed", zap.Error(err))
	}
}

// withLimit returns metadata that say since when a limit holds.
func withLimit(metadata map[string]string, limit int64, since uint64) map[string]string {
	with := map[string]string{}
	for key, value := range metadata {
		with[key] = value
	}
	with[metadataLimit] = fmt.Sprintf("%d@%d", limit, since)
	return with
}
