package hub

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"hash/maphash"
	"math/bits"
	"time"
	"unsafe"
)

const (
	// repeatTime is how long a message's key is known.
	// Package broker promises the same time, so that a retry is as safe with a broker as without one.
	repeatTime = 2 * time.Minute

	// maxKeys bounds the table of keys: it holds those of 23,000 messages a second. See keyLimitLocked.
	maxKeys = 2_800_000

	// keyCost and ownerCost are about what a key and an owner of keys take in the table and in its indexes.
	keyCost   = int64(unsafe.Sizeof(knownKey{})) + 56
	ownerCost = int64(unsafe.Sizeof(keyOwner{})) + 32
)

// repeats knows the keys of the last messages, so that a publisher that retries after an unknown outcome does not
// publish twice. When the table is full, the owner with the most keys loses its oldest, so nobody can make it forget
// the keys of those who have fewer. Hub.mu guards all but secret and seed.
type repeats struct {
	secret [32]byte     // so that nobody can make two keys look like one
	seed   maphash.Seed // of digests and owners

	start   time.Time // of knownKey.at
	known   map[keyID]uint32
	owners  map[uint64]uint32
	keys    slab[knownKey, *knownKey]
	owned   slab[keyOwner, *keyOwner]
	byAge   slabList     // all keys, the oldest first
	classes [33]slabList // owners, by how many bits the number of their keys has
	timer   *time.Timer
	evicted uint64 // keys that were forgotten before their time
}

// keyID stands for a publisher, a channel and a key.
type keyID [16]byte

// keyed is what repeats needs to know of a message that has a key.
type keyed struct {
	id     keyID
	digest uint64 // of what it says
	owner  uint64
	first  int // the first message of the batch that has the same ID

	// What look has found:
	seq         uint64 // of the message that had the key, or 0
	at          time.Time
	subscribers int
	stale       bool // the key is in the table, but too old
}

// knownKey is a key and what became of its message. The numbers are places in repeats.keys; 0 is none.
type knownKey struct {
	id          keyID
	seq, digest uint64
	at          time.Duration // since repeats.start
	subscribers uint32
	owner       uint32
	in          [2]links // inAge, inOwner
}

// The lists that a key is in: repeats.byAge, and keyOwner.keys.
const inAge, inOwner = 0, 1

func (k *knownKey) links(which int) *links { return &k.in[which] }

// keyOwner is a publisher that has keys in the table.
type keyOwner struct {
	id    uint64
	count uint32
	keys  slabList // the oldest first
	class links
}

// inClass is the one list that an owner is in, of repeats.classes.
const inClass = 0

func (o *keyOwner) links(int) *links { return &o.class }

// init makes the secret and the seed. They are of this process, so keys do not survive it: the hub's own log does
// not either.
func (r *repeats) init() {
	rand.Read(r.secret[:])
	r.seed = maphash.MakeSeed()
	r.start = time.Now()
}

// keysOf prepares the keys of messages, without the lock. It returns nil if there are none, and an error if two
// messages have the same key and say something else.
func (r *repeats) keysOf(ms []*Message) ([]keyed, error) {
	var keys []keyed
	var seen map[keyID]int
	for i, m := range ms {
		if m.Key == "" {
			continue
		}
		if keys == nil {
			keys = make([]keyed, len(ms))
		}
		k := keyed{id: r.idOf(m), digest: r.digest(m), owner: maphash.String(r.seed, m.owner()), first: i}
		if len(ms) > 1 {
			if seen == nil {
				seen = make(map[keyID]int, len(ms))
			}
			if first, ok := seen[k.id]; !ok {
				seen[k.id] = i
			} else if k.first = first; keys[first].digest != k.digest {
				return nil, ErrKeyReused
			}
		}
		keys[i] = k
	}
	return keys, nil
}

// owner returns who the key takes space for.
func (m *Message) owner() string {
	if m.Owner != "" {
		return m.Owner
	}
	return m.Publisher
}

// idOf hashes what a key is unique in. With the lengths no other three strings make the same bytes. The secret keeps
// a client from computing two that are equal in the 16 bytes that are kept.
func (r *repeats) idOf(m *Message) (id keyID) {
	b := make([]byte, 0, 512)
	b = append(b, r.secret[:]...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(m.Publisher)))
	b = append(b, m.Publisher...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(m.Channel)))
	b = append(b, m.Channel...)
	b = append(b, m.Key...)
	sum := sha256.Sum256(b)
	copy(id[:], sum[:])
	return id
}

// digest tells what two messages with one key say apart.
func (r *repeats) digest(m *Message) uint64 {
	var d maphash.Hash
	d.SetSeed(r.seed)
	d.WriteByte(byte(m.Kind))
	d.WriteString(m.Event)
	d.WriteByte(0) // which no event's name has
	switch {
	case m.Emit != nil:
		d.Write(m.appendEmit(nil, false))
	case m.Conflate.IsSet():
		d.Write(m.appendConflate(nil))
	default:
		d.Write(m.Data)
	}
	return d.Sum64()
}

// look finds those of the keys that are known, and reports whether their messages say the same.
func (r *repeats) look(keys []keyed, now time.Time) bool {
	for n := range keys {
		k := &keys[n]
		i := r.known[k.id]
		if i == 0 {
			continue
		}
		known := r.keys.at(i)
		switch {
		case now.Sub(r.start)-known.at >= repeatTime:
			// It is not forgotten yet: the call may be rejected for another key, and then nothing changes.
			k.stale = true
		case known.digest != k.digest:
			return false
		default:
			k.seq, k.at, k.subscribers = known.seq, r.start.Add(known.at), int(known.subscribers)
		}
	}
	return true
}

// recordKeyLocked keeps the key of a message that has been given its place.
func (h *Hub) recordKeyLocked(m *Message, k *keyed) {
	r := &h.repeats
	now := m.Time.Sub(r.start)
	r.expire(now, 4) // more than come
	if k.stale {
		if i := r.known[k.id]; i != 0 {
			r.forget(i)
		}
	}
	before := r.bytes()
	if len(r.known) >= h.keyLimitLocked() {
		r.evict(k.owner)
	}
	if r.known == nil {
		r.known, r.owners = make(map[keyID]uint32), make(map[uint64]uint32)
	}
	o := r.owners[k.owner]
	if o == 0 {
		o = r.owned.add(keyOwner{id: k.owner})
		r.owners[k.owner] = o
	}
	i := r.keys.add(knownKey{id: k.id, seq: m.Seq, digest: k.digest, at: now, subscribers: uint32(m.Subscribers), owner: o})
	r.known[k.id] = i
	r.keys.push(&r.byAge, inAge, i)
	r.keys.push(&r.owned.at(o).keys, inOwner, i)
	r.recount(o, 1)
	h.held.Add(r.bytes() - before)
	if r.timer == nil {
		r.timer = time.AfterFunc(repeatTime, h.expireKeys)
	}
}

// keyLimitLocked returns how many keys there may be: with Config.MaxMemory so many that they take an eighth of it at
// most, though each has another owner.
func (h *Hub) keyLimitLocked() int {
	if limit := h.config.MaxMemory; limit > 0 {
		return int(min(maxKeys, limit/8/(keyCost+ownerCost)))
	}
	return maxKeys
}

// bytes returns what the table takes: space that was used once is kept until the table is empty.
func (r *repeats) bytes() int64 { return int64(r.keys.made)*keyCost + int64(r.owned.made)*ownerCost }

// evict forgets the oldest key of the owner that has the most, or of the one that wants another if it has as many.
func (r *repeats) evict(wants uint64) {
	// Classes go by the number of bits, so an owner that has at least half as many keys as any other is found in 33
	// steps.
	top := len(r.classes) - 1
	for r.classes[top].first == 0 {
		top--
	}
	victim := r.classes[top].first
	if o := r.owners[wants]; o != 0 && bits.Len32(r.owned.at(o).count) == top {
		victim = o
	}
	r.forget(r.owned.at(victim).keys.first)
	r.evicted++
}

// expire forgets at most that many keys whose time is over, and reports whether it forgot that many.
func (r *repeats) expire(now time.Duration, most int) bool {
	for range most {
		if r.byAge.first == 0 || now-r.keys.at(r.byAge.first).at < repeatTime {
			return false
		}
		r.forget(r.byAge.first)
	}
	return true
}

// expireKeys forgets the keys whose time is over when no message comes that would.
func (h *Hub) expireKeys() {
	for more := true; more; {
		h.mu.Lock()
		r := &h.repeats
		if h.closed {
			h.mu.Unlock()
			return
		}
		now := time.Since(r.start)
		if more = r.expire(now, 256); !more {
			if r.byAge.first == 0 {
				r.timer = nil
				h.forgetKeysLocked()
			} else {
				r.timer.Reset(r.keys.at(r.byAge.first).at + repeatTime - now)
			}
		}
		h.mu.Unlock()
	}
}

// forgetKeysLocked gives the table back.
func (h *Hub) forgetKeysLocked() {
	r := &h.repeats
	h.held.Add(-r.bytes())
	r.evicted += uint64(len(r.known))
	// Replaced and not cleared, because a map keeps its space (golang/go#20135).
	r.known, r.owners = nil, nil
	r.keys, r.owned = slab[knownKey, *knownKey]{}, slab[keyOwner, *keyOwner]{}
	r.byAge, r.classes = slabList{}, [33]slabList{}
}

// forget takes a key out of the table.
func (r *repeats) forget(i uint32) {
	k := r.keys.at(i)
	o := k.owner
	r.keys.unlink(&r.byAge, inAge, i)
	r.keys.unlink(&r.owned.at(o).keys, inOwner, i)
	delete(r.known, k.id)
	r.keys.remove(i)
	r.recount(o, -1)
}

// recount changes how many keys an owner has, and with that, maybe, its class.
func (r *repeats) recount(o uint32, n int) {
	own := r.owned.at(o)
	before := bits.Len32(own.count)
	own.count = uint32(int(own.count) + n)
	after := bits.Len32(own.count)
	if before == after {
		return
	}
	if before > 0 {
		r.owned.unlink(&r.classes[before], inClass, o)
	}
	if after == 0 {
		delete(r.owners, own.id)
		r.owned.remove(o)
		return
	}
	r.owned.push(&r.classes[after], inClass, o)
}
