package natstest

import (
	"os/exec"
	"syscall"
)

// dieWithParent has the process killed when the test process ends without its cleanup, by a panic or a timeout.
func dieWithParent(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
