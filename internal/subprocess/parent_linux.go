// Package subprocess starts programs that must not outlive the process that started them.
package subprocess

import (
	"os/exec"
	"syscall"
)

// DieWithParent has a command's process killed when this process ends without its cleanup: by a panic, a timeout or kill -9.
func DieWithParent(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
