//go:build !linux

package subprocess

import "os/exec"

// DieWithParent does nothing where the kernel has no such thing: the process stays.
func DieWithParent(*exec.Cmd) {}
