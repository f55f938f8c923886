package brokertest

import (
	"fmt"
	"slices"
	"sync"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
)

// recorder is a Sink that keeps what it is given, and notes what a log must never do. It only notes problems and does not
// fail, because a *testing.T must not be failed by a goroutine that outlives the test: finish reports them.
type recorder struct {
	// Held from enter to the end of each call of the Sink.
	mu       sync.Mutex
	changed  chan struct{} // closed at each change
	problems []string
	inside   bool // a call has not returned
	closed   bool // no more calls are allowed

	epoch  string
	epochs int
	began  uint64 // where the epoch began
	// It is counted here, from what comes, and not asked of the log: the hub has only that too.
	w       uint64
	broken  bool
	breaks  int
	caught  bool // up: entries came since Broken
	lost    []string
	entries []broker.Entry // of the epoch
	// By position, of the epoch. One position that comes twice would reach clients twice.
	had map[uint64]bool
}

// newRecorder returns one that is broken, because a Log begins as Broken and need not say so.
func newRecorder() *recorder {
	return &recorder{changed: make(chan struct{}), broken: true, had: make(map[uint64]bool)}
}

// enter begins a call, and returns what ends it.
func (r *recorder) enter(what string) (leave func()) {
	r.mu.Lock()
	// The lock would only have the second call wait. That it was made at all is what the contract forbids, and a hub that
	// takes a lock of its own in callbacks may rely on it.
	if r.inside {
		r.problemLocked("%s was called during another call", what)
	}
	if r.closed {
		r.problemLocked("%s was called after Close had returned", what)
	}
	r.inside = true
	return func() {
		r.inside = false
		close(r.changed)
		r.changed = make(chan struct{})
		r.mu.Unlock()
	}
}

// problemLocked notes a problem for finish. It is only called between enter and its end.
func (r *recorder) problemLocked(format string, args ...any) {
	// The first ones say what is wrong, the others follow from them.
	if len(r.problems) < 10 {
		r.problems = append(r.problems, fmt.Sprintf(format, args...))
	}
}

// problemsOf returns the problems. It is called after Close, when a log that keeps its promises has no more calls to make.
func (r *recorder) problemsOf() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.problems
}

// Epoch implements broker.Sink.
func (r *recorder) Epoch(epoch string, at uint64) {
	defer r.enter("Epoch")()
	valid := len(epoch) >= 1 && len(epoch) <= 32 && !slices.ContainsFunc([]byte(epoch), func(b byte) bool {
		return (b < '0' || b > '9') && (b < 'a' || b > 'z') && (b < 'A' || b > 'Z')
	})
	switch {
	case !valid:
		r.problemLocked("the epoch is %q, not 1 to 32 letters and digits", epoch)
	// The hub closes nothing and drops nothing if it is told its own epoch, so its clients would keep positions that now mean
	// something else: rule 7.
	case epoch == r.epoch:
		r.problemLocked("the epoch %q began twice", epoch)
	}
	r.epoch, r.began, r.w, r.entries = epoch, at, at, nil
	r.epochs++
	clear(r.had)
}

// Entries implements broker.Sink.
func (r *recorder) Entries(run []broker.Entry) {
	defer r.enter("Entries")()
	if r.epoch == "" {
		r.problemLocked("entries came before Epoch")
	}
	if len(run) == 0 {
		r.problemLocked("Entries was called with no entry")
	}
	r.caught = true
	for i, e := range run {
		switch {
		// Positions begin at 1: see broker.Entry.
		case e.Seq == 0:
			r.problemLocked("an entry of %q has no position", e.Channel)
		// What a repair reads may also come live. The log has to drop one of the two.
		case r.had[e.Seq]:
			r.problemLocked("position %d came twice", e.Seq)
		// Only within a run. Two runs may overlap after a fault, and the next case judges that.
		case i > 0 && e.Seq < run[i-1].Seq:
			r.problemLocked("in one run %d came after %d", e.Seq, run[i-1].Seq)
		// I4: an entry below W is allowed only while the hub has been told that something may be missing.
		case e.Seq <= r.w && !r.broken:
			r.problemLocked("%d of %q came when W was %d, and Broken had not been called", e.Seq, e.Channel, r.w)
		}
		r.had[e.Seq] = true
		r.w = max(r.w, e.Seq)
		r.entries = append(r.entries, e)
	}
}

// Advance implements broker.Sink.
func (r *recorder) Advance(seq uint64) {
	defer r.enter("Advance")()
	if r.epoch == "" {
		r.problemLocked("Advance came before Epoch")
	}
	// I1.
	if seq < r.w {
		r.problemLocked("Advance(%d) came when W was %d", seq, r.w)
	}
	r.w = max(r.w, seq)
}

// Broken implements broker.Sink.
func (r *recorder) Broken(why error) {
	defer r.enter("Broken")()
	if why == nil {
		r.problemLocked("Broken does not say why")
	}
	r.broken, r.caught = true, false
	r.breaks++
}

// Lost implements broker.Sink.
func (r *recorder) Lost(channels []string) {
	defer r.enter("Lost")()
	if len(channels) == 0 {
		r.problemLocked("Lost was called with no channel")
	}
	if !r.broken {
		r.problemLocked("Lost came without Broken")
	}
	// A hub that gets the entries first has told clients a position behind the hole, and cannot tell them of it any more.
	if r.caught {
		r.problemLocked("Lost(%q) came after entries that the log had missed", channels)
	}
	r.lost = append(r.lost, channels...)
}

// Repaired implements broker.Sink.
func (r *recorder) Repaired() {
	defer r.enter("Repaired")()
	if r.epoch == "" {
		r.problemLocked("Repaired came before Epoch")
	}
	if !r.broken {
		r.problemLocked("Repaired came without Broken")
	}
	r.broken = false
}

// opened checks a call of Open's callback. It is one of the calls that must not overlap, because the hub opens a channel at
// W, which the Sink's calls move.
func (r *recorder) opened(at uint64, err error) {
	defer r.enter("opened")()
	// I2: the hub gives clients this position.
	if err == nil && at > r.w {
		r.problemLocked("opened was called with %d when W was %d", at, r.w)
	}
}

// of returns the entries of channels, sorted by position: a late one comes where it belongs.
func (r *recorder) of(channels ...string) (es []broker.Entry) {
	for _, e := range r.entries {
		if slices.Contains(channels, e.Channel) {
			es = append(es, e)
		}
	}
	return sortedBySeq(es)
}
