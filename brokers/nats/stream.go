package nats

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/broker"

	"go.uber.org/zap"
)

const (
	// keepAtLeast is how long entries are kept so that a node that was away for a moment can catch up, and how many of each
	// channel, even if clients get no history.
	// The contract wants keys to be known as long. 64 is also how far back ids survive a restart of a server, which finds
	// them in what it still has (rebuildDedupe in nats-server 2.15.2).
	keepAtLeast  = 2 * time.Minute
	keptMessages = 64

	metadataEpoch   = "broadcast.epoch"
	metadataVersion = "broadcast.version"
)

// streamConfig is what JetStream calls so, with the fields that matter here.
type streamConfig struct {
	Name         string            `json:"name"`
	Description  string            `json:"description,omitempty"`
	Subjects     []string          `json:"subjects"`
	Retention    string            `json:"retention"`
	Discard      string            `json:"discard"`
	Storage      string            `json:"storage"`
	Replicas     int               `json:"num_replicas"`
	MaxConsumers int               `json:"max_consumers"`
	MaxMsgs      int64             `json:"max_msgs"`
	MaxPerSubj   int64             `json:"max_msgs_per_subject"`
	MaxAge       time.Duration     `json:"max_age"`
	MaxBytes     int64             `json:"max_bytes"`
	MaxMsgSize   int32             `json:"max_msg_size"`
	Duplicates   time.Duration     `json:"duplicate_window"`
	AllowDirect  bool              `json:"allow_direct"`
	AllowAtomic  bool              `json:"allow_atomic"`
	DenyDelete   bool              `json:"deny_delete"`
	DenyPurge    bool              `json:"deny_purge"`
	Republish    *republish        `json:"republish,omitempty"`
	Metadata     map[string]string `json:"metadata,omitempty"`
	Sealed       bool              `json:"sealed,omitempty"`
	NoAck        bool              `json:"no_ack,omitempty"`

	// all is the configuration as the server has it, with what is not above.
	all map[string]json.RawMessage
}

// UnmarshalJSON also keeps what the structure has no field for: see changed.
func (s *streamConfig) UnmarshalJSON(b []byte) error {
	type fields streamConfig
	if err := json.Unmarshal(b, (*fields)(s)); err != nil {
		return err
	}
	return json.Unmarshal(b, &s.all)
}

// changed returns a configuration with what differs from s in want, and all else as it is: an update replaces the whole, and
// administrators set what is not in streamConfig, such as placement and compression.
func (s *streamConfig) changed(want streamConfig) (map[string]json.RawMessage, error) {
	var have, wanted map[string]json.RawMessage
	for _, c := range []struct {
		from streamConfig
		to   *map[string]json.RawMessage
	}{{*s, &have}, {want, &wanted}} {
		b, err := json.Marshal(c.from)
		if err == nil {
			err = json.Unmarshal(b, c.to)
		}
		if err != nil {
			return nil, err
		}
	}
	all := maps.Clone(s.all)
	for name := range have {
		if _, kept := wanted[name]; !kept {
			delete(all, name)
		}
	}
	for name, value := range wanted {
		if !bytes.Equal(value, have[name]) {
			all[name] = value
		}
	}
	return all, nil
}

// republish is where the leader sends what it has stored.
type republish struct {
	Source      string `json:"src"`
	Destination string `json:"dest"`
	HeadersOnly bool   `json:"headers_only,omitempty"`
}

// streamInfo is JetStream's description of a stream, with the fields that matter here.
type streamInfo struct {
	Config  streamConfig `json:"config"`
	Created time.Time    `json:"created"`
	State   struct {
		FirstSeq  uint64            `json:"first_seq"`
		FirstTime time.Time         `json:"first_ts"`
		LastSeq   uint64            `json:"last_seq"`
		Subjects  map[string]uint64 `json:"subjects"`
	} `json:"state"`
	Now time.Time `json:"ts"` // by the leader's clock
}

// wanted is the stream as this node would make it.
func (l *log) wanted() streamConfig {
	c := &l.config
	l.mu.Lock()
	keep := l.retention
	l.mu.Unlock()
	s := streamConfig{
		// discard old, since with "new" a full stream refuses publishers until somebody makes room. deny_delete and
		// deny_purge keep administrators from removing single messages, or those of one subject: that would be a loss that
		// nothing shows. To remove all, they delete the stream, which begins another epoch.
		Name: c.Stream, Description: "caddy-broadcast", Subjects: []string{c.Prefix + ".s.>"}, Retention: "limits", Discard: "old", Storage: "file",
		// One more than clients may resume over: complete looks for the entry that a client has last, as a proof that none
		// after it is gone.
		Replicas: c.Replicas, MaxConsumers: -1, MaxMsgs: -1, MaxPerSubj: int64(max(keep.Messages+1, keptMessages)), MaxBytes: c.MaxBytes,
		MaxMsgSize: -1, Duplicates: keepAtLeast, AllowDirect: true, AllowAtomic: true, DenyDelete: true, DenyPurge: true,
		Republish: &republish{Source: c.Prefix + ".s.>", Destination: c.Prefix + ".l.>"},
	}
	if keep.Age > 0 {
		// The server refuses a duplicate window that is longer than the age (stream.go of nats-server 2.15.2).
		s.MaxAge = max(keep.Age, keepAtLeast)
	}
	if c.Memory {
		s.Storage = "memory"
	}
	if s.Replicas == 0 {
		// One server that fails takes a stream with fewer copies along. Who wants that has to say so.
		s.Replicas = 3
	}
	return s
}

// differences names the fields of a stream that do not do what this node needs. A stream that keeps more is fine.
func differences(have, want streamConfig, manage, replicas bool) (fields []string) {
	differ := func(name string, have, want any) {
		if !reflect.DeepEqual(have, want) {
			fields = append(fields, fmt.Sprintf("%s is %v and has to be %v", name, have, want))
		}
	}
	// What follows has to be exactly so: without republish nothing arrives, without direct get and atomic batches
	// requests fail, and another set of subjects is another log.
	differ("subjects", have.Subjects, want.Subjects)
	differ("retention", have.Retention, want.Retention)
	differ("discard", have.Discard, want.Discard)
	differ("allow_direct", have.AllowDirect, true)
	differ("allow_atomic", have.AllowAtomic, true)
	differ("sealed", have.Sealed, false)
	differ("no_ack", have.NoAck, false)
	if have.Republish == nil {
		fields = append(fields, fmt.Sprintf("republish is missing and has to be from %s to %s", want.Republish.Source, want.Republish.Destination))
	} else {
		differ("republish", *have.Republish, *want.Republish)
	}
	if have.Duplicates < want.Duplicates {
		differ("duplicate_window", have.Duplicates, want.Duplicates)
	}
	// A limit over all channels would remove the history of quiet ones because of busy ones.
	if have.MaxMsgs > 0 {
		differ("max_msgs", have.MaxMsgs, want.MaxMsgs)
	}
	// What this node may change has to be as the options say. Otherwise it is enough that the stream keeps as much.
	if manage {
		differ("storage", have.Storage, want.Storage)
		differ("max_bytes", have.MaxBytes, want.MaxBytes)
		differ("max_msgs_per_subject", have.MaxPerSubj, want.MaxPerSubj)
		differ("max_age", have.MaxAge, want.MaxAge)
		if replicas {
			differ("replicas", have.Replicas, want.Replicas)
		}
		return fields
	}
	if have.MaxPerSubj > 0 && have.MaxPerSubj < want.MaxPerSubj {
		differ("max_msgs_per_subject", have.MaxPerSubj, want.MaxPerSubj)
	}
	if have.MaxAge > 0 && (want.MaxAge == 0 || have.MaxAge < want.MaxAge) {
		differ("max_age", have.MaxAge, want.MaxAge)
	}
	return fields
}

// ensure returns the stream, which it creates or changes if the options allow it.
// Only the keeper calls it, so one node changes one thing at a time.
func (l *log) ensure(ctx context.Context) (*streamInfo, error) {
	info, err := l.info(ctx, "")
	if isCode(err, codeStreamNotFound) {
		if !l.config.Manage {
			return nil, fmt.Errorf("the stream %s does not exist, and manage is off", l.config.Stream)
		}
		info, err = l.create(ctx)
	}
	if err != nil {
		return nil, err
	}
	want := l.wanted()
	fields := differences(info.Config, want, l.config.Manage, l.config.Replicas > 0)
	if len(fields) > 0 {
		if !l.config.Manage {
			return nil, fmt.Errorf("the stream %s differs, and manage is off: %s", l.config.Stream, join(fields))
		}
		// The last node to look wins. If two nodes have other options, each start and reload of one changes the stream.
		l.logger().Warn("the stream differs from this node's options, and is changed: all nodes need the same options",
			zap.String("stream", l.config.Stream), zap.Strings("fields", fields))
		want = adapted(want, info.Config)
		// A limit that is lowered has held for as long as the higher one did.
		if limit, since, ok := notedLimit(info); ok && limit == info.Config.MaxPerSubj && want.MaxPerSubj < limit {
			want.Metadata = withLimit(want.Metadata, want.MaxPerSubj, since)
		}
		if l.config.Replicas == 0 {
			// Without the option administrators may choose, and a node does not undo it.
			want.Replicas = info.Config.Replicas
		}
		updated, err := l.update(ctx, info, want)
		if err != nil {
			return nil, fmt.Errorf("the stream %s differs (%s) and cannot be changed: %w", l.config.Stream, join(fields), err)
		}
		info = updated
	}
	// A look-up differs for one server and for several: see publisher.lookUp.
	l.clustered.Store(info.Config.Replicas > 1)
	if limit, _, ok := notedLimit(info); l.config.Manage && (!ok || limit != info.Config.MaxPerSubj) {
		l.keeper.noteLater(time.Now())
	}
	return info, nil
}

// adapted is what a stream has to become that exists: where both do, it is left as administrators made it.
func adapted(want, have streamConfig) streamConfig {
	want.Metadata, want.Description = have.Metadata, have.Description
	want.MaxConsumers, want.MaxMsgSize = have.MaxConsumers, have.MaxMsgSize
	want.Duplicates = max(want.Duplicates, have.Duplicates)
	return want
}

// update changes a stream.
func (l *log) update(ctx context.Context, info *streamInfo, want streamConfig) (*streamInfo, error) {
	for {
		request, err := info.Config.changed(want)
		if err != nil {
			return nil, err
		}
		var updated streamInfo
		if err = l.api(ctx, "STREAM.UPDATE."+l.config.Stream, request, &updated); errors.Is(err, errNoReply) {
			err = fmt.Errorf("%w: may the account publish there?", err) // a server that refuses it does not reply
		}
		if err != nil {
			return nil, err
		}
		// Another node may have changed the epoch since info was read, and this update has undone that.
		epoch, at, _, err := l.readEpoch(ctx, &updated)
		if err != nil || at == 0 || updated.Config.Metadata[metadataEpoch] == epoch {
			return &updated, err
		}
		info, want = &updated, withEpoch(updated.Config, epoch)
	}
}

func join(fields []string) string {
	slices.Sort(fields)
	text := ""
	for i, f := range fields {
		if i > 0 {
			text += "; "
		}
		text += f
	}
	return text
}

// create makes the stream. If several nodes do it at once then one of them gives it its epoch.
func (l *log) create(ctx context.Context) (*streamInfo, error) {
	want := l.wanted()
	before := uint64(0)
	if known := l.knownEpoch(); known != "" { // somebody has deleted the stream
		before = epochsBefore(known) + 1
	}
	want.Metadata = withLimit(map[string]string{metadataEpoch: newEpoch(before), metadataVersion: "1"}, want.MaxPerSubj, 1)
	var info streamInfo
	asked := time.Now()
	err := l.api(ctx, "STREAM.CREATE."+l.config.Stream, want, &info)
	switch {
	// The server says so of another configuration only, and it is another: each node would give the stream an epoch of its
	// own.
	case isCode(err, codeStreamNameInUse): // another node was faster
		return l.info(ctx, "")
	case isCode(err, codeReplicas, codeNoPeers) && l.config.Replicas == 0:
		return nil, fmt.Errorf("the stream %s cannot be kept by 3 servers, so a server that fails takes it along: set replicas 1 if that is intended (%w)",
			l.config.Stream, err)
	case err != nil:
		return nil, fmt.Errorf("the stream %s cannot be created: %w", l.config.Stream, err)
	}
	l.setClock(info.Now, asked)
	return &info, nil
}

// info asks the leader for the stream. With a subject, State.Subjects has how many entries it has.
func (l *log) info(ctx context.Context, subject string) (*streamInfo, error) {
	var request any
	if subject != "" {
		request = map[string]string{"subjects_filter": subject}
	}
	var info streamInfo
	asked := time.Now()
	err := l.api(ctx, "STREAM.INFO."+l.config.Stream, request, &info)
	if err == nil {
		l.setClock(info.Now, asked)
	}
	return &info, err
}

// Retain changes the stream in the background.
// It implements broker.Log, whose methods do not block.
func (l *log) Retain(keep broker.Retention) {
	l.mu.Lock()
	changed := l.retention != keep
	l.retention = keep
	l.mu.Unlock()
	if changed {
		l.keeper.wake(&l.keeper.retain)
	}
}
