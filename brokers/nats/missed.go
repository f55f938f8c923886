package nats

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
)

// maxMissed is how many bytes of entries are read to catch up. What is beyond is lost.
// All of them are in memory before the first is delivered, because they are read channel by channel and delivered in the
// order of the log.
const maxMissed = 64 << 20

// position is how far a node has a channel.
type position struct {
	c    *channel
	last uint64
}

// positions returns the open channels, without that of all. The receiver calls it.
func (l *log) positions() (open []position) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.channels {
		if c.open && c.name != "" {
			open = append(open, position{c, c.last})
		}
	}
	return open
}

// missed reads what open channels have between what this node has and a position.
func (l *log) missed(ctx context.Context, epoch string, at uint64) (missed []broker.Entry, lost []string, err error) {
	var open []position
	var all, same bool
	var watermark uint64
	l.inReceiver(func() {
		open = l.positions()
		r := &l.receiver
		l.mu.Lock()
		defer l.mu.Unlock()
		same, all, watermark = r.began && r.epoch == epoch, r.all != nil, r.watermark
	})
	switch {
	// Another epoch: nothing that this node has is before anything there. All clients get a gap.
	case !same:
		return nil, nil, nil
	// A wildcard does not tell which channels there are, so everything is read.
	case all:
		return l.missedOfAll(ctx, watermark, at)
	}
	m := missing{l: l, at: at, room: maxMissed}
	for group := range slices.Chunk(open, groupSize) {
		if err := m.readGroup(ctx, group); err != nil {
			return nil, nil, err
		}
	}
	slices.SortFunc(m.entries, func(a, b broker.Entry) int { return cmp.Compare(a.Seq, b.Seq) })
	return m.entries, m.lost, nil
}

// groupSize is how many channels are asked for at once. The server answers for 1024 at most, and takes 1 MiB in a request.
// The subjects of 250 of the longest names are 200 KB.
const groupSize = 250

// maxReads is how many channels are read at a time.
// Each waits for the broker most of the time. A thousand channels one by one would take a second for each millisecond that
// an answer takes.
const maxReads = 64

// news returns those of a group that have messages after what the node has, up to at least a position, with the newest of
// each.
func (l *log) news(ctx context.Context, group []position, at uint64) (news []position, newest []found, err error) {
	from := group[0].last
	subjects := make([]string, len(group))
	bySubject := make(map[string]position, len(group))
	for i, p := range group {
		// A request has one beginning for all of its subjects. What some of them have from there is sorted out below.
		from = min(from, p.last)
		subjects[i] = l.store + encodeChannel(p.c.name)
		bySubject[subjects[i]] = p
	}
	fs, err := l.lasts(ctx, subjects, from+1, at, nil)
	for _, f := range fs {
		if p := bySubject[f.subj]; f.seq > p.last {
			news, newest = append(news, p), append(newest, f)
		}
	}
	return news, newest, err
}

// missing is what was missed.
type missing struct {
	l  *log
	at uint64

	mu      sync.Mutex
	room    int // bytes
	entries []broker.Entry
	lost    []string
	err     error
}

// readGroup reads what a group has missed. A place is taken before the goroutine is started, so there are never more of
// them.
func (m *missing) readGroup(ctx context.Context, group []position) error {
	news, newest, err := m.l.news(ctx, group, m.at)
	if err != nil {
		return err
	}
	var reads sync.WaitGroup
	places := make(chan struct{}, maxReads)
	for i, p := range news {
		places <- struct{}{}
		reads.Go(func() {
			defer func() { <-places }()
			m.read(ctx, p, newest[i])
		})
	}
	reads.Wait()
	return m.err
}

// read reads one channel. If there is no room for all, then it is lost as a whole.
func (m *missing) read(ctx context.Context, p position, newest found) {
	m.mu.Lock()
	room := m.room
	failed := m.err != nil
	m.mu.Unlock()
	if failed {
		return
	}
	var entries []broker.Entry
	read, size := 0, 0
	// Up to the newest, which may be after at, because others publish on. What is after at comes as a message, and is not
	// taken here.
	w := walk{l: m.l, subject: newest.subj, after: p.last, to: newest.seq, end: max(m.at, newest.seq), n: maxBatchRead, bytes: maxAnswer}
	fits := room > 0
	var complete bool
	var err error
	if fits {
		err = w.run(ctx, func(f found) bool {
			read++
			w.n, w.bytes = w.read+maxBatchRead, maxAnswer // all are wanted
			if e, ok := m.l.entryOf(p.c.name, f); ok && f.seq <= m.at {
				entries = append(entries, e)
				size += len(f.data) + entryOverhead
				fits = m.take(len(f.data) + entryOverhead)
			}
			return fits
		})
		if err == nil && fits {
			complete, err = m.l.complete(ctx, newest.subj, p.last, max(m.at, newest.seq), read)
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case err != nil:
		m.err = err
	case !fits:
		// The next channel may fit.
		m.room += size
		m.lost = append(m.lost, p.c.name)
	default:
		m.entries = append(m.entries, entries...)
		// What is there is delivered nevertheless, and the hub tells clients of the gap before it.
		if !complete {
			m.lost = append(m.lost, p.c.name)
		}
	}
}

// entryOverhead is the memory that an entry takes in addition to its data.
const entryOverhead = 256

// take reserves room, and is false if there is not enough.
func (m *missing) take(size int) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.room -= size
	return m.room >= 0
}

// missedOfAll reads everything, for a node that has all channels open. lost is "", which stands for all channels, if it is
// too much or if it is not known what was there.
func (l *log) missedOfAll(ctx context.Context, after, at uint64) (missed []broker.Entry, lost []string, err error) {
	read := map[string]int{}
	room := maxMissed
	w := walk{l: l, subject: everything, after: after, to: at, end: at, n: maxBatchRead, bytes: maxAnswer}
	err = w.run(ctx, func(f found) bool {
		w.n, w.bytes = w.read+maxBatchRead, maxAnswer
		name, ok := decodeChannel(f.subj[len(l.store):])
		if !ok {
			return true
		}
		// Counted before it is known whether a node has published it, because the stream's limit counts all.
		read[name]++
		if e, ok := l.entryOf(name, f); ok {
			missed = append(missed, e)
		}
		room -= len(f.data) + entryOverhead
		return room >= 0
	})
	if err != nil {
		return nil, nil, err
	}
	if room < 0 {
		return nil, []string{""}, nil
	}
	info, err := l.info(ctx, "")
	if err != nil {
		return nil, nil, err
	}
	kept, err := l.notAged(ctx, info, after)
	if err != nil {
		return nil, nil, err
	}
	if !kept || info.State.FirstSeq > after+1 {
		return missed, []string{""}, nil
	}
	// What the limit of a channel removed is not seen, but only if as many as the limit are left.
	limit, since := limitSince(info, after), int64(info.State.LastSeq-min(at, info.State.LastSeq))
	for name, n := range read {
		if int64(n)+since < limit {
			continue
		}
		complete, err := l.complete(ctx, l.store+encodeChannel(name), after, at, n)
		if err != nil {
			return nil, nil, err
		}
		if !complete {
			lost = append(lost, name)
		}
	}
	return missed, lost, nil
}

// audit looks whether everything came, without a reason to doubt it: the leader that dies between storing an entry and
// republishing it loses it for those who are connected, and if nothing more is published on the channel then nothing shows it.
// The keeper calls it, about once a minute. It costs two requests for the epoch, and one for each 250 channels.
func (l *log) audit() {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	// 0 if the broker cannot be reached. Then the log catches up anyway, and there is nothing to look for.
	came := make(chan uint64, 1)
	l.Barrier(func(seq uint64, err error) { came <- seq })
	at := <-came
	if at == 0 {
		return
	}
	if l.epochDiffers(ctx) {
		l.queue.push(func() { l.fail("audit") })
		return
	}
	// After the barrier: now last of each channel counts everything up to at.
	var open []position
	l.inReceiver(func() { open = l.positions() })
	for group := range slices.Chunk(open, groupSize) {
		_, newest, err := l.news(ctx, group, at)
		if err != nil {
			return
		}
		for _, f := range newest {
			// A later one may be on its way.
			if f.seq <= at {
				l.queue.push(func() { l.fail("audit") })
				return
			}
		}
	}
}
