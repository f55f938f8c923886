package presence

import "testing"

// ShrinkLimits has channels with fewer members be counted only, until the test ends.
func ShrinkLimits(t *testing.T, listed, again int) {
	before, beforeAgain := maxListed, listedAgain
	maxListed, listedAgain = listed, again
	t.Cleanup(func() { maxListed, listedAgain = before, beforeAgain })
}
