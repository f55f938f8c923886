package natstest

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	natsgo "github.com/nats-io/nats.go"
)

// Disk is a file system of its own, which can be full.
type Disk struct {
	Dir string

	t      testing.TB
	filler string
}

// NewDisk mounts a file system of so many bytes, which ends with the test. Where that is not allowed, the test is skipped,
// in CI too: a container may forbid it even to root, and no package can be installed against that.
func NewDisk(t testing.TB, size int) *Disk {
	t.Helper()
	d := &Disk{Dir: t.TempDir(), t: t}
	d.filler = filepath.Join(d.Dir, "filler")
	// A limit of the nats-server is not the same: it refuses messages before it writes, and a full disk fails a write.
	out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size="+strconv.Itoa(size), "tmpfs", d.Dir).CombinedOutput()
	if err != nil {
		t.Skipf("a tmpfs cannot be mounted, which needs Linux and root: %v %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", d.Dir).CombinedOutput(); err != nil {
			t.Errorf("%v %s", err, out)
		}
	})
	return d
}

// Fill takes all of the space that is left.
func (d *Disk) Fill() {
	d.t.Helper()
	f, err := os.OpenFile(d.filler, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Close()
	for piece := make([]byte, 4096); err == nil; {
		_, err = f.Write(piece)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		d.t.Fatal(err)
	}
}

// Free gives that space back.
func (d *Disk) Free() {
	d.t.Helper()
	if err := os.Remove(d.filler); err != nil {
		d.t.Fatal(err)
	}
}

// StartOn starts a server as Start does, whose store is on a disk.
func StartOn(t testing.TB, d *Disk, more string, options ...natsgo.Option) *Server {
	t.Helper()
	s := newServer(t, freePorts(t, 1)[0])
	s.Store = filepath.Join(d.Dir, "store")
	return s.start(more, options...)
}
