package logwriter

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
)

// format writes the messages' data, each on a line.
type format struct{}

func (format) Append(dst []byte, run []*hub.Message) []byte {
	for _, m := range run {
		dst = append(append(dst, m.Data...), '\n')
	}
	return dst
}
func (format) Ping() []byte                     { return nil }
func (format) Close(hub.Reason, string) []byte  { return nil }
func (format) Gap(channels []string) (p []byte) { panic("a gap") }

// sink is a connection's socket, which takes everything.
type sink struct {
	mu    sync.Mutex
	more  *sync.Cond
	lines []string
}

func (s *sink) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lines = append(s.lines, strings.Split(strings.TrimSuffix(string(p), "\n"), "\n")...)
	s.more.Broadcast()
	return len(p), nil
}

// await returns the first n lines when they have come.
func (s *sink) await(n int) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.lines) < n {
		s.more.Wait()
	}
	return slices.Clone(s.lines)
}
