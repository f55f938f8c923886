package doctor_test

import (
	"testing"

	"golang.org/x/sys/unix"
)

// limitFiles sets how many files a process may open.
func limitFiles(t *testing.T, pid int, n uint64) {
	t.Helper()
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: n, Max: 20_000}, nil); err != nil {
		t.Fatal(err)
	}
}
