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
	held time.Duration
	by   string
}

// LongestHold returns how long Hub.mu was held at most since the last call, and by which function.
func LongestHold() (time.Duration, string) {
	longest.Lock()
	defer longest.Unlock()
	held, by := longest.held, longest.by
	longest.held, longest.by = 0, ""
	return held, by
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
	if held > longest.held {
		longest.held, longest.by = held, caller()
	}
	longest.Unlock()
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
	pc := make([]uintptr, 5)
	frames := runtime.CallersFrames(pc[:runtime.Callers(3, pc)])
	var names []string
	for {
		f, more := frames.Next()
		_, name, _ := strings.Cut(f.Function, "/hub.")
		names = append(names, name)
		if !more {
			return strings.Join(names, " < ")
		}
	}
}
