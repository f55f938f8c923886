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
	oldest  uint32 // of all keys, which are a list in the order of time
	newest  uint32
	classes [33]ownerList // owners, by how many bits the number of their keys has
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
	id             keyID
	seq, digest    uint64
	at             time.Duration // since repeats.start
	subscribers    uint32
	owner          uint32
	older, newer   uint32 // of all keys
	before, behind uint32 // of its owner's, by age
}

func (k *knownKey) link() *uint32 { return &k.newer }

// keyOwner is a publisher that has keys in the table.
type keyOwner struct {
	id             uint64
	count          uint32
	oldest, newest uint32
	before, after  uint32 // in its class
}

func (o *keyOwner) link() *uint32 { return &o.after }

type ownerList struct{ first, last uint32 }

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

func (m *Message) owner() string {
	if m.Owner != "" {
		return m.Owner
	}
	return m.Publisher
}

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
	d.Write(m.Data)
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
	i := r.keys.add(knownKey{id: k.id, seq: m.Seq, digest: k.digest, at: now, subscribers: uint32(m.Subscribers), owner: o, older: r.newest})
	if r.known[k.id] = i; r.newest == 0 {
		r.oldest = i
	} else {
		r.keys.at(r.newest).newer = i
	}
	r.newest = i
	own := r.owned.at(o)
	if own.count == 0 {
		own.oldest = i
	} else {
		r.keys.at(own.newest).behind = i
		r.keys.at(i).before = own.newest
	}
	own.newest = i
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
	top := len(r.classes) - 1
	for r.classes[top].first == 0 {
		top--
	}
	victim := r.classes[top].first
	if o := r.owners[wants]; o != 0 && bits.Len32(r.owned.at(o).count) == top {
		victim = o
	}
	r.forget(r.owned.at(victim).oldest)
	r.evicted++
}

// expire forgets at most that many keys whose time is over, and reports whether it forgot that many.
func (r *repeats) expire(now time.Duration, most int) bool {
	for range most {
		if r.oldest == 0 || now-r.keys.at(r.oldest).at < repeatTime {
			return false
		}
		r.forget(r.oldest)
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
			if r.oldest == 0 {
				r.timer = nil
				h.forgetKeysLocked()
			} else {
				r.timer.Reset(r.keys.at(r.oldest).at + repeatTime - now)
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
	r.known, r.owners = nil, nil
	r.keys, r.owned = slab[knownKey, *knownKey]{}, slab[keyOwner, *keyOwner]{}
	r.oldest, r.newest, r.classes = 0, 0, [33]ownerList{}
}

// forget takes a key out of the table.
func (r *repeats) forget(i uint32) {
	k := r.keys.at(i)
	o := k.owner
	own := r.owned.at(o)
	if k.before == 0 {
		own.oldest = k.behind
	} else {
		r.keys.at(k.before).behind = k.behind
	}
	if k.behind == 0 {
		own.newest = k.before
	} else {
		r.keys.at(k.behind).before = k.before
	}
	delete(r.known, k.id)
	if k.older == 0 {
		r.oldest = k.newer
	} else {
		r.keys.at(k.older).newer = k.newer
	}
	if k.newer == 0 {
		r.newest = k.older
	} else {
		r.keys.at(k.newer).older = k.older
	}
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
	if list := &r.classes[before]; before > 0 {
		if own.before == 0 {
			list.first = own.after
		} else {
			r.owned.at(own.before).after = own.after
		}
		if own.after == 0 {
			list.last = own.before
		} else {
			r.owned.at(own.after).before = own.before
		}
	}
	own.before, own.after = 0, 0
	if after == 0 {
		delete(r.owners, own.id)
		r.owned.remove(o)
		return
	}
	list := &r.classes[after]
	if own.before = list.last; list.last == 0 {
		list.first = o
	} else {
		r.owned.at(list.last).after = o
	}
	list.last = o
}

// slab is an array that grows without being copied. Places are numbers from 1. What is free is a list, by link.
type slab[T any, P interface {
	*T
	link() *uint32
}] struct {
	chunks []*[slabChunk]T
	made   uint32 // places that were ever used
	free   uint32
}

const slabChunk = 1024

func (s *slab[T, P]) at(i uint32) P { return &s.chunks[(i-1)/slabChunk][(i-1)%slabChunk] }

func (s *slab[T, P]) add(v T) uint32 {
	i := s.free
	if i != 0 {
		s.free = *s.at(i).link()
	} else {
		if int(s.made) == slabChunk*len(s.chunks) {
			s.chunks = append(s.chunks, new([slabChunk]T))
		}
		s.made++
		i = s.made
	}
	*s.at(i) = v
	return i
}

func (s *slab[T, P]) remove(i uint32) {
	*s.at(i) = *new(T)
	*s.at(i).link() = s.free
	s.free = i
}
