package main

import (
	"os/exec"
	"syscall"
)

// dieWithParent has a process killed when this one is killed. nats-server does not read its standard input, by which the nodes
// notice it.
func dieWithParent(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
