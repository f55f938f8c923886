//go:build linux

package main

func (t *table) write(dir string, rounds int, seconds float64) error { return nil }
