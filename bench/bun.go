//go:build linux

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
)

// bunDir is where npm puts Bun, whose server is uWebSockets. uWebSockets itself is not on npm, nor in Debian.
func bunDir() string { return filepath.Join(nodeDir(), "..", "bun") }

// bunFile is the binary itself, after the package's install script.
func bunFile() string { return filepath.Join(bunDir(), "node_modules", ".bin", "bun") }

// missingBun installs Bun if there is an npm, in the version that the lock file pins.
func missingBun() string {
	if _, err := exec.LookPath("npm"); err != nil {
		return "npm"
	}
	if _, err := os.Stat(bunFile()); err == nil {
		return ""
	}
	return installPackages(bunDir())
}

// startBun starts uWebSockets in Bun, with and without TLS. It is one thread, as an application in JavaScript is.
func startBun(dir string, port int) (*server, error) {
	cert, key, err := certificate(dir)
	if err != nil {
		return nil, err
	}
	s := &server{
		target:  target{addr: address(port), path: func(i int) string { return "/?room=" + strconv.Itoa(i) }},
		publish: func(i int) string { return "/publish?room=" + strconv.Itoa(i) },
		wrap:    plain,
		tlsAddr: address(port + 2),
	}
	return run(s, bunDir(), bunFile(), "server.js", strconv.Itoa(port), strconv.Itoa(port+2), cert, key)
}
