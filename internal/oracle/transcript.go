package oracle

import (
	"fmt"
	"slices"
	"strings"
)

// A transcript is what a connection was told, a line each. These functions append lines. log is the newest position of the
// log at that moment: what a connection is told must not be ahead of it, and a gap excuses nothing after it.

// Hello appends the position at which a connection begins.
func Hello(p []byte, id, log string, gaps []string) []byte {
	return fmt.Appendf(p, "hello %s %s %s\n", id, log, strings.Join(gaps, ","))
}

// Joined appends the position at which a connection joins a channel, after the message with an ID, or "".
func Joined(p []byte, channel, id, log, after string, gap bool) []byte {
	return fmt.Appendf(p, "join %s %s %s after:%s gap:%v\n", channel, id, log, after, gap)
}

// Message appends a message that came live.
func Message(p []byte, channel, id string, data []byte) []byte {
	p = append(append(append(p, "message "...), channel...), ' ')
	return append(append(append(append(p, id...), ' '), data...), '\n')
}

// Missed appends a message that was missed. It follows a Joined.
func Missed(p []byte, channel, id string, data []byte) []byte {
	return fmt.Appendf(p, "missed %s %s %s\n", channel, id, data)
}

// Gap appends that messages of channels may be missing. The channel "*" stands for all channels.
func Gap(p []byte, channels []string, log string) []byte {
	return fmt.Appendf(p, "gap %s %s\n", strings.Join(channels, ","), log)
}

// Left appends that a connection has left a channel.
func Left(p []byte, channel string) []byte { return fmt.Appendf(p, "left %s\n", channel) }

// Closed appends why a connection was closed.
func Closed(p []byte, why any) []byte { return fmt.Appendf(p, "closed %v\n", why) }

// Connection is one connection of a client, and its transcript.
type Connection struct {
	Name       string
	Channels   []string // at first
	LastID     string   // that it came with
	Gone       bool     // it has ended, so it need not have everything
	Owned      map[string]bool
	All        bool // it is on all channels by one subscription, so it gets all messages of an emit
	Transcript string
}

// lines returns what it was told.
func (c *Connection) lines() []string {
	return strings.Split(strings.TrimSuffix(c.Transcript, "\n"), "\n")
}

// Position returns where a client with a transcript would resume: after the last message, or before the first one at the
// position of the hello. If the transcript has neither, that is lastID.
func Position(lastID, transcript string) string {
	for transcript != "" {
		i := strings.LastIndexByte(strings.TrimSuffix(transcript, "\n"), '\n') + 1
		switch f := strings.Fields(transcript[i:]); f[0] {
		case "hello":
			return f[1]
		case "message":
			return f[2]
		}
		transcript = transcript[:i]
	}
	return lastID
}

// Check returns what is wrong with the transcript of a connection. On each of its channels, every message after its
// position has to come, once and in order, or be covered by a gap.
func (l *Log) Check(c Connection) []string {
	v := &check{log: l, conn: &c, tracks: make(map[string]*track), emits: make(map[string]bool), been: make(map[string]bool)}
	v.run()
	return v.wrong
}

// check compares one transcript with the log.
type check struct {
	log   *Log
	conn  *Connection
	wrong []string

	epoch  string
	pos    uint64 // of the newest message
	tracks map[string]*track
	emits  map[string]bool // to several rooms, that have come
	been   map[string]bool // channels that it was ever on
}

// Transient returns the data of a message that is not kept, by which this package knows it. A client that is connected gets it if
// all is well, and nobody is told that it is missing.
func Transient(data string) string { return "~" + data }

// IsTransient reports whether data is that of a message that is not kept.
func IsTransient(data string) bool { return strings.HasPrefix(data, "~") }

// Emit returns the data of a message of an emit to several rooms, by which this package knows it.
func Emit(number string, rooms []string, room string) string {
	return number + "!" + strings.Join(rooms, "+") + "!" + room
}

// emitOf is the inverse of Emit: it returns what is the same in all messages of the emit, and the rooms before this one.
func emitOf(data string) (emit string, before []string) {
	f := strings.Split(data, "!")
	if len(f) != 3 {
		return "", nil
	}
	rooms := strings.Split(f[1], "+")
	return f[0], rooms[:slices.Index(rooms, f[2])]
}

// hasEmit reports whether a message need not come, because its emit has come or comes by another room. Whoever resumes, or
// joins, counts as having the emit by a room before that it is on, or was before this is looked at.
func (v *check) hasEmit(data string) bool {
	emit, before := emitOf(data)
	return !v.conn.All && (v.emits[emit] || slices.ContainsFunc(before, func(room string) bool { return v.been[room] }))
}

// track is what is known of one channel of a connection.
type track struct {
	last uint64            // everything up to here has come, or was not due
	gaps map[string]uint64 // by epoch: up to where messages may be missing
}

// excuse notes that a gap was told of when the log was at a position.
func (t *track) excuse(upTo string) {
	epoch, seq := parseID(upTo)
	t.gaps[epoch] = max(t.gaps[epoch], seq)
}

// excused reports whether a gap was told of when the log had a position. In a later epoch it has had all of those before.
func (t *track) excused(epoch string, seq uint64) bool {
	for at, upTo := range t.gaps {
		if at == epoch && seq <= upTo || number(at) > number(epoch) {
			return true
		}
	}
	return false
}

func (v *check) fail(format string, args ...any) {
	lines := v.conn.lines()
	if n := len(lines); n > 100 { // a whole day's would bury the message
		lines = append([]string{fmt.Sprintf("(%d lines)", n-100)}, lines[n-100:]...)
	}
	v.wrong = append(v.wrong, fmt.Sprintf("%s: %s\n\t%s", v.conn.Name, fmt.Sprintf(format, args...), strings.Join(lines, "\n\t")))
}

func (v *check) run() {
	closed := v.conn.Gone
	for line := range strings.Lines(v.conn.Transcript) {
		switch f := strings.Split(strings.TrimSuffix(line, "\n"), " "); f[0] {
		case "hello":
			v.hello(f[1], f[2], f[3])
		case "join":
			v.join(f[1], f[2], f[3], strings.TrimPrefix(f[4], "after:"), f[5] == "gap:true")
		case "missed", "message":
			v.message(f[0] == "message", f[1], f[2], f[3])
		case "gap":
			names := strings.Split(f[1], ",")
			for name, t := range v.tracks {
				if slices.Contains(names, name) || f[1] == "*" {
					t.excuse(f[2])
				}
			}
		case "left":
			delete(v.tracks, f[1])
		case "closed":
			closed = true
		default:
			v.fail("was told %q", line)
		}
		if len(v.wrong) > 0 {
			return
		}
	}
	if !closed {
		v.end()
	}
}

// begin begins to track a channel, from a position on, or after an ID that the client came with.
func (v *check) begin(name, id, upTo, after string, gap bool) {
	_, seq := parseID(id)
	t := &track{last: seq, gaps: make(map[string]uint64)}
	v.tracks[name], v.been[name] = t, true
	if gap {
		t.excuse(upTo)
		return
	}
	if after == "" {
		return
	}
	epoch, from := parseID(after)
	if t.last = from; epoch != v.epoch {
		v.fail("resumed %s after %s in epoch %s, and was told of no gap", name, after, v.epoch)
	} else if seq < from {
		v.fail("came with %s and was given %s", after, id)
	}
}

func (v *check) hello(id, upTo, gaps string) {
	v.epoch, v.pos = parseID(id)
	if epoch, seq := parseID(upTo); epoch == v.epoch && v.pos > seq {
		v.fail("was given %s when the log was at %s", id, upTo)
	}
	lost := strings.Split(gaps, ",")
	for _, name := range v.conn.Channels {
		v.begin(name, id, upTo, v.conn.LastID, slices.Contains(lost, name))
	}
}

func (v *check) join(name, id, upTo, after string, gap bool) {
	epoch, _ := parseID(id)
	v.enter(epoch)
	v.begin(name, id, upTo, after, gap)
}

// enter goes to another epoch, if it is one. A gap has to be told of each channel when that has begun.
func (v *check) enter(epoch string) {
	if epoch == v.epoch {
		return
	}
	if v.epoch != "" && number(epoch) < number(v.epoch) {
		v.fail("went back from epoch %s to %s", v.epoch, epoch)
	}
	for name, t := range v.tracks {
		if !t.excused(epoch, 0) {
			v.fail("was told of no gap of %s when epoch %s began", name, epoch)
		}
		t.last = 0
	}
	v.epoch, v.pos = epoch, 0
}

func (v *check) message(live bool, name, id, data string) {
	epoch, seq := parseID(id)
	v.enter(epoch)
	t := v.tracks[name]
	switch e := v.log.epochs[epoch][seq]; {
	case e.channel != name || e.data != data:
		v.fail("got %s of %s as %s, where %q of %q is", data, name, id, e.data, e.channel)
		return
	case t == nil:
		v.fail("got %s of %s, which it is not on", id, name)
		return
	case live && seq <= v.pos:
		v.fail("got %s after %d", id, v.pos)
	case seq <= t.last:
		v.fail("got %s after %d of %s", id, t.last, name)
	case live && v.conn.Owned[data]:
		v.fail("got an echo of %s", data)
	}
	v.missing(name, t, seq)
	t.last = seq
	if emit, _ := emitOf(data); emit != "" && !v.conn.All {
		if live && v.emits[emit] {
			v.fail("got the emit %s twice", data)
		}
		v.emits[emit] = true
	}
	if live {
		v.pos = seq
	}
}

// missing checks that of what did not come of a channel before a position the client was told first.
func (v *check) missing(name string, t *track, before uint64) {
	for _, seq := range v.log.between(v.epoch, name, t.last, before) {
		if data := v.log.epochs[v.epoch][seq].data; !IsTransient(data) && !t.excused(v.epoch, seq) && !v.conn.Owned[data] && !v.hasEmit(data) {
			v.fail("misses %s-%d of %s (before %d), and was told of no gap", v.epoch, seq, name, before)
		}
	}
}

// end checks that a connection that is still there has everything.
func (v *check) end() {
	if len(v.tracks) > 0 {
		v.enter(v.log.last)
	}
	for name, t := range v.tracks {
		v.missing(name, t, whole)
	}
}
