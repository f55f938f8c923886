//go:build !linux

package main

import "os/exec"

// dieWithParent does nothing where the kernel has no such thing: a nats-server stays if this process is killed with -9.
func dieWithParent(*exec.Cmd) {}
