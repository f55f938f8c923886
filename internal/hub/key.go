package hub

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	mathrand "math/rand/v2"
	"slices"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
)

// keyChannel is the channel in a shared log that has the secret keys of the hubs that share it. Whoever can read it can
// also read all messages.
const keyChannel = "\x01key"

// KeySize is the size in bytes of a key.
const KeySize = 32

// maxSharedKeys is how many keys a hub remembers. There is one, unless the log had lost it, and a hub came that had never had it.
const maxSharedKeys = 8

// keyEntry is an entry of keyChannel.
type keyEntry struct {
	Key []byte `json:"key"`
}

// parseKey reads an entry, which may be anything: the log is input from outside.
func parseKey(data []byte) (key [KeySize]byte, ok bool) {
	var e keyEntry
	if json.Unmarshal(data, &e) != nil || len(e.Key) != KeySize {
		return key, false
	}
	return [KeySize]byte(e.Key), true
}

// sharedKeys is what a hub knows of keyChannel. Hub.mu guards it.
type sharedKeys struct {
	all     [][KeySize]byte // the newest is the first
	loading chan struct{}   // closed when what is under way has ended
	seen    time.Time       // when one has come
	renewal *time.Timer
}

// SharedKeys returns the keys of the hubs that share the log, the one to use first. The first call gets them from the log, or
// makes one. None without an error means that the hub shares no log.
func (c *Conn) SharedKeys() ([][KeySize]byte, error) {
	h := c.hub
	w := want{channels: []string{toChannel, keyChannel}, conn: c}
	defer w.done(h)
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		if h.log == nil {
			return nil, nil
		}
		h.naming = true
		if err := h.awaitLocked(&w); err != nil {
			return nil, err
		}
		w.unpinLocked() // neither is ever released
		s := h.log
		if s == nil || w.log != s {
			continue
		}
		s.tracesLocked()
		if len(s.keys.all) > 0 {
			return slices.Clone(s.keys.all), nil
		}
		wait, first := s.keys.loading, s.keys.loading == nil
		if first {
			wait = make(chan struct{})
			s.keys.loading = wait
		}
		h.mu.Unlock()
		var err error
		if first {
			err = s.loadKeys()
			h.mu.Lock()
			s.keys.loading = nil
			close(wait)
		} else {
			<-wait
			h.mu.Lock()
		}
		if err == nil && time.Now().After(w.deadline) {
			err = ErrNotReady
		}
		if err != nil {
			return nil, err
		}
	}
}

// loadKeys gets the keys from the log. If it has none it makes one: of several hubs that do so at the same time one succeeds,
// because the entry has an idempotency key.
func (s *sharedLog) loadKeys() error {
	ctx, cancel := context.WithTimeout(s.ctx, positionTime)
	defer cancel()
	for try := range 3 {
		es, err := s.log.Last(ctx, keyChannel, maxSharedKeys, maxSharedKeys*256)
		if err != nil {
			return err
		}
		s.hub.mu.Lock()
		for _, e := range es {
			if key, ok := parseKey(e.Data); ok {
				s.addKeyLocked(key)
			}
		}
		have := len(s.keys.all) > 0
		s.hub.mu.Unlock()
		if have {
			return nil
		}
		var key [KeySize]byte
		rand.Read(key[:])
		// If the log has lost it within two minutes, only another idempotency key, or none, brings another one.
		if err := s.publishKey(key, try < 2); err != nil {
			return err
		}
	}
	return errors.New("the log has no key")
}

// publishKey publishes a key and waits for the answer.
func (s *sharedLog) publishKey(key [KeySize]byte, once bool) error {
	data, err := json.Marshal(keyEntry{key[:]})
	if err != nil {
		return err
	}
	e := broker.Entry{Channel: keyChannel, Kind: uint8(JSON), Data: data, Node: s.hub.node}
	if once {
		sum := sha256.Sum256([]byte(keyChannel))
		copy(e.Key[:], sum[:])
		e.Digest = 1 // the same with any key, so that the second is a repetition and not a conflict
	}
	answer := make(chan error, 1)
	s.log.Publish([]broker.Entry{e}, func(_ []broker.Place, err error) { answer <- err })
	return <-answer
}

// addKeyLocked notes a key.
func (s *sharedLog) addKeyLocked(key [KeySize]byte) {
	k := &s.keys
	k.seen = time.Now()
	if !slices.Contains(k.all, key) {
		k.all = slices.Insert(k.all, 0, key)
		k.all = k.all[:min(len(k.all), maxSharedKeys)]
	}
	if k.renewal == nil && s.currentLocked() {
		k.renewal = time.AfterFunc(s.renewalLocked(), s.renewKey)
	}
}

// renewalLocked returns when to look whether the log still has a key: well before it drops it for its age. Each hub does it at
// another time, so mostly one of them publishes it.
func (s *sharedLog) renewalLocked() time.Duration {
	d := time.Hour
	if _, age := s.hub.config.mostKept(); age > 0 {
		d = min(d, max(age/2, 30*time.Second))
	}
	return d/2 + mathrand.N(d/2)
}

// renewKey publishes the key again, if no hub has done so for a while, because logs drop what is old.
func (s *sharedLog) renewKey() {
	h := s.hub
	h.mu.Lock()
	if !s.currentLocked() {
		h.mu.Unlock()
		return
	}
	next := s.renewalLocked()
	key, due := s.keys.all[0], time.Since(s.keys.seen) >= next/2 && s.started
	s.keys.renewal.Reset(next)
	h.mu.Unlock()
	if due {
		s.publishKey(key, false) // or the next time
	}
}
