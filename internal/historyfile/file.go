// Package historyfile keeps what a process knows of its own log for the next one: the history, positions and keys, in one file
// of Caddy's storage. A clean exit writes it, and the next start reads it and removes it.
//
// The file must never be read twice, or by a process that does not follow the one that wrote it: clients would be told that
// they miss nothing, though there were messages in between. So next to the file there is one with the mark of the process that
// started last. Only that one writes the file, which has the mark too, and it is good only while the mark is still there.
// Two processes that start at the same time both write their marks, and one of them finds another one's when it has read the
// file. A process that is killed leaves its mark, and no file.
package historyfile

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io/fs"
	"path"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"
)

var logger = func() *zap.Logger { return caddy.Log().Named("broadcast.history") } // a variable for tests

const (
	// header says what the file is, and in which version.
	header = "caddy-broadcast history 1\n"

	markSize = 16

	// timeout bounds how long a start or an exit waits for the storage, which may be a server.
	timeout = 10 * time.Second

	// stuck is how long they wait for one that does not end when it is told to, as a disk in a network that is gone.
	stuck = 30 * time.Second

	// litter is how old a file is that nobody comes for any more: that of an instance that is gone, such as a container whose
	// directory for data was not kept. Longer than machines are off for a holiday.
	litter = 30 * 24 * time.Hour
)

// Part is something that is saved. Restore of a Part that returns an error has changed nothing.
type Part interface {
	Save(dst []byte) []byte
	Restore(p []byte) error
}

// File is the file of a process.
type File struct {
	parts []Part

	mu      sync.Mutex
	storage certmagic.Storage // nil while the file is not used
	name    string            // of the storage
	mark    []byte            // this process's, once it is written there
	saved   bool
}

// New returns the file that has some parts, in this order.
func New(parts ...Part) *File { return &File{parts: parts} }

// Settings are what a configuration says.
type Settings struct {
	Storage certmagic.Storage // nil if the file is not used
}

// Restore reads the file, and has the parts go on from it. It is called before the process has had any messages.
func (f *File) Restore(s Settings) { f.use(s, true) }

// Use follows the settings of the running configuration.
func (f *File) Use(s Settings) { f.use(s, false) }

func (f *File) use(s Settings, restore bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.storage = s.Storage
	if s.Storage == nil {
		return
	}
	name := nameOf(s.Storage)
	if name == f.name {
		return // the mark is there
	}
	f.name, f.mark = "", nil // if it fails, the next configuration tries again
	begin := time.Now()
	var p, mark []byte
	err := within(func(ctx context.Context) (keep func(), err error) {
		q, m, err := take(ctx, s.Storage)
		return func() { p, mark = q, m }, err
	})
	if err != nil {
		logger().Error("the history file cannot be used, so this process will not save its history", zap.Error(err))
		return
	}
	f.name, f.mark = name, mark
	if restore {
		go removeLitter(s.Storage)
	}
	if !restore || p == nil {
		return
	}
	if err := f.restore(p); err != nil {
		logger().Warn("the history file is not used: clients get a gap", zap.Error(err))
		return
	}
	logger().Info("the history of the process before is restored", zap.Int("bytes", len(p)), zap.Duration("duration", time.Since(begin)))
}

// nameOf tells storages apart. Each configuration has modules of its own.
func nameOf(s certmagic.Storage) string {
	if s, ok := s.(interface{ String() string }); ok {
		return s.String()
	}
	return "storage"
}

// folder returns where the files of this process are. Machines may share a storage, and each of them has its own.
func folder() string {
	id, err := caddy.InstanceID()
	if err != nil {
		return "broadcast"
	}
	return path.Join("broadcast", id.String())
}

func fileKey() string { return path.Join(folder(), "history") }
func markKey() string { return path.Join(folder(), "history_mark") }

// within calls f, which uses a storage, and does not wait for long. It calls keep, which sets what f has found out, if f was in
// time.
func within(f func(ctx context.Context) (keep func(), err error)) error {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	type result struct {
		keep func()
		err  error
	}
	done := make(chan result, 1)
	go func() {
		defer cancel()
		keep, err := f(ctx)
		done <- result{keep, err}
	}()
	over := time.NewTimer(stuck)
	defer over.Stop()
	select {
	case r := <-done:
		if r.err == nil {
			r.keep()
		}
		return r.err
	case <-over.C:
		return errStuck
	}
}

var errStuck = errors.New("the storage does not answer")

// take writes this process's mark, and returns it, and what the process that was there before has saved, or nil. The file is
// removed in any case.
func take(ctx context.Context, s certmagic.Storage) (p, mark []byte, err error) {
	before, err := load(ctx, s, markKey())
	if err != nil {
		return nil, nil, err
	}
	mark = make([]byte, markSize)
	rand.Read(mark)
	if err := s.Store(ctx, markKey(), mark); err != nil {
		return nil, nil, err
	}
	p, err = load(ctx, s, fileKey())
	if err != nil {
		return nil, nil, err
	}
	if p == nil {
		return nil, mark, nil
	}
	// Before it is used: a file that cannot be removed would be read again by the next process.
	if err := remove(ctx, s); err != nil {
		return nil, nil, err
	}
	if now, err := load(ctx, s, markKey()); err != nil || !bytes.Equal(now, mark) {
		return nil, mark, err // another process has started at the same time, and has the file
	}
	if len(p) < len(header)+markSize || !bytes.Equal(p[len(header):len(header)+markSize], before) {
		logger().Warn("the history file is not used, because the process that started last has not written it: clients get a gap")
		return nil, mark, nil
	}
	return p, mark, nil
}

// remove removes the file, if there is one.
func remove(ctx context.Context, s certmagic.Storage) error {
	if err := s.Delete(ctx, fileKey()); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Discard removes a file that a process before has left, because this one does not use it. What this one publishes is missing in
// it, so a later one must not find it. It is called before the process has any messages.
func Discard(s certmagic.Storage) {
	err := within(func(ctx context.Context) (func(), error) {
		return func() {}, remove(ctx, s)
	})
	if err != nil {
		logger().Warn("a history file that is not used cannot be removed", zap.Error(err))
	}
}

// removeLitter removes files of instances that have not started for a long time. Their marks stay, as those of instances that run
// are as old, and no larger than a few bytes.
func removeLitter(s certmagic.Storage) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	folders, err := s.List(ctx, "broadcast", false)
	if err != nil {
		return // there is none, or the next start will do it
	}
	for _, folder := range folders {
		key := path.Join(folder, path.Base(fileKey()))
		if info, err := s.Stat(ctx, key); err == nil && key != fileKey() && time.Since(info.Modified) > litter {
			if s.Delete(ctx, key) == nil {
				logger().Info("the history of an instance that is gone is removed", zap.String("file", key))
			}
		}
	}
}

// load returns what the storage has, or nil if it has nothing.
func load(ctx context.Context, s certmagic.Storage, key string) ([]byte, error) {
	p, err := s.Load(ctx, key)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return p, err
}

// castagnoli is of a checksum for which processors have an instruction: 64 MiB take 10 ms, and with SHA-256 they took 350 ms, at
// the exit and at the start. It is for damage only: who can write the file can make any checksum.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var errFormat = errors.New("it is damaged, or of another version")

// restore has the parts go on from a file.
func (f *File) restore(p []byte) error {
	if len(p) < len(header)+markSize+crc32.Size || string(p[:len(header)]) != header {
		return errFormat
	}
	p, sum := p[:len(p)-crc32.Size], p[len(p)-crc32.Size:]
	if crc32.Checksum(p, castagnoli) != binary.BigEndian.Uint32(sum) {
		return errFormat
	}
	p = p[len(header)+markSize:]
	for _, part := range f.parts {
		if len(p) < 8 || binary.BigEndian.Uint64(p) > uint64(len(p)-8) {
			return errFormat
		}
		n := binary.BigEndian.Uint64(p)
		if err := part.Restore(p[8 : 8+n]); err != nil {
			return err
		}
		p = p[8+n:]
	}
	return nil
}

// InUse reports whether Save will write the file, unless another process has started meanwhile.
func (f *File) InUse() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.storage != nil && f.mark != nil
}

// Save writes the file, if the settings say so, once. Nothing changes any more in the parts.
func (f *File) Save() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.storage == nil || f.saved {
		return
	}
	f.saved = true
	begin, size := time.Now(), 0
	err := within(func(ctx context.Context) (func(), error) {
		n, err := save(ctx, f.storage, f.mark, f.encode)
		return func() { size = n }, err
	})
	switch {
	case errors.Is(err, errNotMine):
		logger().Info("another process has started with the same storage, so this one does not save its history")
	case err != nil:
		logger().Error("the history is not saved: after the start clients get a gap", zap.Error(err))
	default:
		logger().Info("the history is saved for the next process", zap.Int("bytes", size), zap.Duration("duration", time.Since(begin)))
	}
}

var errNotMine = errors.New("another process has started")

// save writes the file, if the mark is the one of the process that started last.
func save(ctx context.Context, s certmagic.Storage, mark []byte, encode func(mark []byte) []byte) (size int, err error) {
	if mark == nil { // it could not be written
		return 0, errors.Join(errors.New("the storage could not be used at the start"), remove(ctx, s))
	}
	now, err := load(ctx, s, markKey())
	if err == nil && !bytes.Equal(now, mark) {
		return 0, errNotMine
	}
	var p []byte
	if err == nil {
		p = encode(mark)
		err = s.Store(ctx, fileKey(), p)
	}
	if err != nil {
		remove(ctx, s) // whatever there is of it
	}
	return len(p), err
}

// encode returns the file.
func (f *File) encode(mark []byte) []byte {
	p := append([]byte(header), mark...)
	for _, part := range f.parts {
		at := len(p)
		p = part.Save(append(p, make([]byte, 8)...))
		binary.BigEndian.PutUint64(p[at:], uint64(len(p)-at-8))
	}
	return binary.BigEndian.AppendUint32(p, crc32.Checksum(p, castagnoli))
}
