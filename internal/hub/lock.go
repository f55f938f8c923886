//go:build !(holds && linux)

package hub

import (
	"sync"
	"time"
)

// lock is the type of Hub.mu. Built with the tag holds, it measures how long it is held.
type lock = sync.Mutex

// LongestHold returns how long Hub.mu was held at most since the last call, and by which function. It is known only in programs
// built with the tag holds, which bench/million is.
func LongestHold() (time.Duration, string) { return 0, "" }
