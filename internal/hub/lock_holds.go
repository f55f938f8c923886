//go:build holds && linux

package hub

import (
	"runtime"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// lock is a mutex that measures how long it is held, in CPU time of the thread: what other threads and processes take of the
// machine meanwhile does not count. All of it is guarded by the mutex itself.
type lock struct {
	mu     sync.Mutex
	thread int
	since  time.Duration
}

var longest struct {
	sync.Mutex
	Holds
}

// LongestHolds returns how long Hub.mu was held since the last call.
func LongestHolds() Holds {
	longest.Lock()
	defer longest.Unlock()
	h := longest.Holds
	longest.Holds = Holds{}
	return h
}

func (l *lock) Lock() {
	l.mu.Lock()
	l.thread, l.since = unix.Gettid(), threadTime()
}

func (l *lock) TryLock() bool {
	if !l.mu.TryLock() {
		return false
	}
	l.thread, l.since = unix.Gettid(), threadTime()
	return true
}

func (l *lock) Unlock() {
	held, known := threadTime()-l.since, l.thread == unix.Gettid()
	l.mu.Unlock()
	if !known { // the goroutine has moved to another thread, which is rare
		return
	}
	longest.Lock()
	defer longest.Unlock()
	longest.N++
	if held > time.Millisecond {
		longest.Long++
	}
	if held > longest.Longest {
		longest.Longest, longest.By = held, caller()
	}
}

// threadTime returns the CPU time of the thread.
func threadTime() time.Duration {
	var t unix.Timespec
	if unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t) != nil {
		return 0
	}
	return time.Duration(t.Nano())
}

// caller returns the functions that held the lock, the innermost first.
func caller() string {
	pc := make([]uintptr, 4)
	frames := runtime.CallersFrames(pc[:runtime.Callers(3, pc)])
	var names []string
	for more := true; more; {
		var f runtime.Frame
		f, more = frames.Next()
		if _, name, ok := strings.Cut(f.Function, "/hub."); ok {
			names = append(names, name)
		}
	}
	return strings.Join(names, ", called by ")
}
