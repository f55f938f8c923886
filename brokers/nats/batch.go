package nats

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
	"github.com/caddy-broadcast/caddy-broadcast/internal/envelope"
	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nuid"
)

// maxBatch is how many entries are stored together: the server's limit of an atomic batch (ADR-50).
// It is streamDefaultMaxAtomicBatchSize in stream.go of nats-server 2.15.2.
const maxBatch = 1000

// several publishes a call with more than one entry. Later calls wait for it.
// It has a goroutine of its own. It calls done before later calls go on, so that calls are also done in their order.
func (p *publisher) several(c call) {
	places, err := p.batches(c.es)
	if err != nil && len(places) > 0 {
		err = &broker.PartialError{Places: places, Err: err}
		places = nil
	}
	if err != nil {
		places = nil
	}
	c.done(places, err)
	p.drain()
}

// batches stores entries, maxBatch at a time. Places and an error mean that only the first entries are stored.
func (p *publisher) batches(es []broker.Entry) (places []broker.Place, err error) {
	// One after the other: JetStream takes several batches at once, but then a later one could be stored and an earlier
	// one not.
	for from := 0; from < len(es); from += maxBatch {
		more, err := p.batch(es[from:min(from+maxBatch, len(es))])
		if err != nil {
			return places, err
		}
		places = append(places, more...)
	}
	return places, nil
}

// batch is entries that are stored together.
type batch struct {
	p         *publisher
	es        []broker.Entry
	ids       []string
	sameAs    []int // an entry of this batch with the same key, or -1
	places    []broker.Place
	attempted bool // an attempt may have stored them
}

// newBatch gives each entry the id that it keeps in all attempts: I6. A conflict within the call is found here, before
// anything is sent, so that nothing is stored.
func (p *publisher) newBatch(es []broker.Entry) (*batch, error) {
	b := &batch{p: p, es: es, ids: make([]string, len(es)), sameAs: make([]int, len(es)), places: make([]broker.Place, len(es))}
	prefix := nuid.Next()[10:]
	byKey := map[[16]byte]int{}
	for i := range es {
		b.ids[i], b.sameAs[i] = prefix+strconv.Itoa(i), -1
		if isZero(es[i].Key) {
			continue
		}
		b.ids[i] = hex.EncodeToString(es[i].Key[:])
		if first, ok := byKey[es[i].Key]; ok {
			if es[first].Digest != es[i].Digest {
				return nil, broker.ErrConflict
			}
			b.sameAs[i] = first
			continue
		}
		byKey[es[i].Key] = i
	}
	return b, nil
}

// batch stores entries together. Those whose keys are known are not stored again; a batch with one fails as a whole, so the
// keys are looked up first.
func (p *publisher) batch(es []broker.Entry) ([]broker.Place, error) {
	deadline := time.Now().Add(p.l.config.PublishTimeout)
	b, err := p.newBatch(es)
	if err != nil {
		return nil, err
	}
	for {
		left, err := b.unknown()
		if err != nil {
			return nil, err
		}
		a, err := p.commit(es, b.ids, left)
		if err == nil && a.Error == nil {
			return b.stored(left, a.Seq), nil
		}
		// After a refusal too. Looking up again costs little, and storing an entry twice would break I6.
		b.attempted = b.attempted || err == nil || errors.Is(err, broker.ErrUnknown)
		if err == nil {
			err = refused(a.Error)
			if a.Error.ErrCode == codeTooBig {
				return nil, err
			}
		}
		if time.Now().After(deadline) || errors.Is(err, broker.ErrClosed) || errors.Is(err, broker.ErrTooBig) {
			return nil, unsure(err, b.attempted)
		}
		select {
		// It is tried again since another node may have stored one of the keys after they were looked up
		// (codeBatchDuplicate), or there may be no leader.
		case <-time.After(retryDelay):
		case <-p.l.done:
			return nil, broker.ErrUnknown
		}
	}
}

// unknown returns the entries that have to be stored, after it has looked up those that may be. Entries without a key may be
// stored only if there was an attempt.
func (b *batch) unknown() (left []int, err error) {
	for i := range b.es {
		e := &b.es[i]
		if b.sameAs[i] >= 0 {
			continue
		}
		if isZero(e.Key) && !b.attempted {
			left = append(left, i)
			continue
		}
		seq, err := b.p.lookUp(e, b.ids[i])
		switch {
		case err != nil:
			return nil, unsure(err, b.attempted)
		case seq == 0:
			left = append(left, i)
		// After an attempt it counts as stored by that attempt, so it is not Repeated.
		case b.attempted:
			b.places[i] = broker.Place{Seq: seq}
		default:
			if b.places[i], err = b.p.compare(e, seq); err != nil {
				return nil, err
			}
		}
	}
	return left, nil
}

// stored returns the places, of which those that were left end at a position.
// The ack of a batch has the position of its last entry (ADR-50). The others are right before it.
func (b *batch) stored(left []int, end uint64) []broker.Place {
	for k, i := range left {
		b.places[i].Seq = end - uint64(len(left)-1-k)
	}
	for i, first := range b.sameAs {
		if first >= 0 {
			b.places[i] = b.places[first]
			b.places[i].Repeated = true
		}
	}
	return b.places
}

// unsure makes ErrDown of an attempt ErrUnknown. I6: whoever gets ErrDown may publish again without a key.
func unsure(err error, attempted bool) error {
	if attempted && errors.Is(err, broker.ErrDown) {
		return fmt.Errorf("%w (%w)", broker.ErrUnknown, err)
	}
	return err
}

// commit sends entries as an atomic batch, and returns the ack of the whole.
func (p *publisher) commit(es []broker.Entry, ids []string, left []int) (ack, error) {
	if len(left) == 0 {
		return ack{}, nil
	}
	batch := nuid.Next()
	var m *natsgo.Msg
	for k, i := range left {
		m = &natsgo.Msg{Subject: p.l.store + encodeChannel(es[i].Channel), Data: envelope.Encode(&es[i]), Header: natsgo.Header{natsgo.MsgIdHdr: {ids[i]}}}
		// One message needs no batch, and does not count against the 50 open ones that a stream may have
		// (streamDefaultMaxAtomicBatchInflightPerStream in nats-server 2.15.2).
		if len(left) == 1 {
			break
		}
		m.Header["Nats-Batch-Id"] = []string{batch}
		m.Header["Nats-Batch-Sequence"] = []string{strconv.Itoa(k + 1)}
		if k == len(left)-1 {
			m.Header["Nats-Batch-Commit"] = []string{"1"}
			break
		}
		// Without a reply subject, since an ack of these would say nothing: none is stored before the last. If that is
		// never sent, then the server drops the others after 10 seconds (streamDefaultMaxBatchTimeout in nats-server
		// 2.15.2), so ErrDown is right.
		if err := p.l.conn.PublishMsg(m); err != nil {
			return ack{}, fmt.Errorf("%w (%w)", broker.ErrDown, err)
		}
	}
	return p.await(m)
}

// lookUp returns where the entry with an id is stored, or 0. It publishes one that is always refused, because it expects to
// come after something that no stream has, but is recognized by its id before. What is looked at first is not the same for
// one server and for several (nats-server 2.15, processJetStreamMsg and checkMsgHeadersPreClusteredProposal): one looks at
// the position, then the id, then the id of the last message. Several look at the id, then the position, and only later, when
// the id is marked as being stored, at the id of the last message.
func (p *publisher) lookUp(e *broker.Entry, id string) (uint64, error) {
	never, value := natsgo.ExpectedLastMsgIdHdr, "none"
	if p.l.clustered.Load() {
		never, value = natsgo.ExpectedLastSeqHdr, "9000000000000000000"
	}
	a, err := p.await(&natsgo.Msg{Subject: p.l.store + encodeChannel(e.Channel), Header: natsgo.Header{natsgo.MsgIdHdr: {id}, never: {value}}})
	switch {
	case err != nil:
		return 0, err
	case a.Error == nil && a.Duplicate:
		return a.Seq, nil
	case a.Error == nil:
		return 0, fmt.Errorf("%w (a look-up was stored)", broker.ErrUnknown)
	case a.Error.ErrCode == codeWrongLastID || a.Error.ErrCode == codeWrongLast || a.Error.ErrCode == codeWrongLastPlain:
		return 0, nil
	}
	return 0, refused(a.Error)
}
