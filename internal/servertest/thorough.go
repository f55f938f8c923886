package servertest

import (
	"os"
	"testing"
)

// Thorough skips a test that takes a minute or more, except in CI and for the long hop test. With -short it is always
// skipped.
func Thorough(t testing.TB) {
	t.Helper()
	if testing.Short() || os.Getenv("CI") == "" && os.Getenv("HOP") == "" {
		t.Skip("it takes a minute or more: CI=1 runs it")
	}
}
