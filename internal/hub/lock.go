//go:build !(holds && linux)

package hub

import "sync"

// lock is the type of Hub.mu. Built with the tag holds, it measures how long it is held.
type lock = sync.Mutex

// LongestHolds returns how long Hub.mu was held since the last call. It is known only in programs built with the tag holds, as
// bench/million should be.
func LongestHolds() Holds { return Holds{} }
