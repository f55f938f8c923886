package socketio

import (
	"encoding/json"
	"slices"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
)

// savedRecord is a record whose session has ended, in the history file.
type savedRecord struct {
	PID       string        `json:"pid"`
	SID       string        `json:"sid"`
	Namespace string        `json:"namespace"`
	Route     string        `json:"route"`
	User      string        `json:"user,omitempty"`
	Channels  []string      `json:"channels"`
	Position  string        `json:"position"`
	Keep      time.Duration `json:"keep"`
	On        []string      `json:"on"`
	Until     time.Time     `json:"until"`
}

// Recovery is what clients need to go on with another connection, as a part of the history file. The hub is restored before it.
type Recovery struct {
	Table *Table
	Hub   *hub.Hub
}

// Save appends the records, in the order in which their sessions ended. All have: the hub is closed.
func (v Recovery) Save(dst []byte) []byte {
	t := v.Table
	t.mu.Lock()
	defer t.mu.Unlock()
	records := []savedRecord{}
	for e := t.recovery.ended.Front(); e != nil; e = e.Next() {
		r := e.Value.(*record)
		records = append(records, savedRecord{r.pid, r.sid, r.namespace, r.route, r.user, r.channels, r.position, r.keep, r.on, r.until})
	}
	p, err := json.Marshal(records)
	if err != nil {
		return dst // there are only strings and numbers, so it cannot be
	}
	return append(dst, p...)
}

// Restore has clients go on with the sessions of the process before.
func (v Recovery) Restore(p []byte) error {
	var records []savedRecord
	if len(p) > 0 {
		if err := json.Unmarshal(p, &records); err != nil {
			return err
		}
	}
	t := v.Table
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.recovery.records == nil {
		t.recovery.records = make(map[string]*record)
	}
	now := time.Now()
	for _, s := range records[:min(len(records), maxRecords)] {
		if latest := now.Add(s.Keep); s.Until.After(latest) {
			s.Until = latest // a clock that was set back: who knows the pid could go on with the session for as much longer
		}
		r := &record{
			pid: s.PID, sid: s.SID, namespace: s.Namespace, route: s.Route, user: s.User,
			channels: slices.Clip(s.Channels), position: s.Position, keep: s.Keep, on: s.On, until: s.Until, restored: true,
		}
		t.recovery.records[r.pid] = r
		r.place = t.recovery.ended.PushBack(r)
		t.recovery.bytes += r.cost()
		v.Hub.Hold(r.cost())
	}
	t.setTimerLocked(v.Hub)
	return nil
}

// mayEnter reports whether the route lets a client into all rooms that it was in before the restart. If a backend has put it into
// one, the client begins anew: the process does not know any more whether that is still meant.
func (s *session) mayEnter(r *record, channels []string) bool {
	return !slices.ContainsFunc(channels, func(c string) bool {
		return !slices.Contains(r.channels, c) && (s.mayJoin == nil || !s.mayJoin(c))
	})
}
