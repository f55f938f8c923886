package historyfile

import (
	"context"
	"errors"
	"io/fs"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/certmagic"
)

// memory is a storage, of which calls can fail, or hang whatever their context says.
type memory struct {
	certmagic.Storage // nil: nothing else is called
	files             map[string]string
	readOnly          bool
	hangs             chan struct{}
	mu                sync.Mutex // calls that hung may come at the same time
}

// enter begins a call. leave ends it.
func (m *memory) enter() (leave func()) {
	if m.hangs != nil {
		<-m.hangs
	}
	m.mu.Lock()
	return m.mu.Unlock
}

func (m *memory) Load(_ context.Context, key string) ([]byte, error) {
	defer m.enter()()
	if p, ok := m.files[key]; ok {
		return []byte(p), nil
	}
	return nil, fs.ErrNotExist
}

func (m *memory) Store(_ context.Context, key string, p []byte) error {
	defer m.enter()()
	if m.readOnly {
		return fs.ErrPermission
	}
	m.files[key] = string(p)
	return nil
}

// Delete fails if there is no such file, as some storages do.
func (m *memory) Delete(_ context.Context, key string) error {
	defer m.enter()()
	if m.readOnly {
		return fs.ErrPermission
	}
	if _, ok := m.files[key]; !ok {
		return fs.ErrNotExist
	}
	delete(m.files, key)
	return nil
}

func (m *memory) List(context.Context, string, bool) ([]string, error) {
	return nil, errors.New("none")
}

// text is a part that has a text.
type text string

func (x *text) Save(dst []byte) []byte { return append(dst, *x...) }
func (x *text) Restore(p []byte) error { *x = text(p); return nil }

// restored returns what a process with a storage has from the one before.
func restored(s certmagic.Storage) (*File, *text) {
	var x text
	f := New(&x)
	f.Restore(Settings{Storage: s})
	return f, &x
}

// saving returns a storage in which a process has saved something.
func saving(t *testing.T) *memory {
	t.Setenv("XDG_DATA_HOME", t.TempDir())
	m := &memory{files: make(map[string]string)}
	f, x := restored(m)
	*x = "saved"
	if f.Save(); m.files[fileKey()] == "" {
		t.Fatal("nothing is saved")
	}
	return m
}

// TestNotUsedInBetween: what was saved is not restored if a process ran in between that did not use the file.
func TestNotUsedInBetween(t *testing.T) {
	m := saving(t)
	Discard(m)
	Discard(m) // there is none
	if _, x := restored(m); *x != "" {
		t.Errorf("%q is restored", *x)
	}
}

// TestReadOnly: a storage that can be written later is used then, and not what is there of a process before.
func TestReadOnly(t *testing.T) {
	for name, again := range map[string]func(f *File, m *memory){
		"when it is reloaded": func(f *File, m *memory) { f.Use(Settings{Storage: m}) },
		"when it ends":        func(*File, *memory) {},
	} {
		t.Run(name, func(t *testing.T) {
			m := saving(t)
			m.readOnly = true
			f, x := restored(m)
			if *x != "" || f.InUse() {
				t.Fatalf("%q is restored", *x)
			}
			m.readOnly, *x = false, "later"
			again(f, m)
			used := f.InUse()
			f.Save()
			want := text("")
			if used {
				want = "later"
			}
			if _, x := restored(m); *x != want {
				t.Errorf("%q is restored, not %q", *x, want)
			}
		})
	}
}

// TestHanging: neither a start nor an exit waits for ever for a storage that does not answer.
func TestHanging(t *testing.T) {
	m := saving(t)
	synctest.Test(t, func(t *testing.T) {
		m.hangs = make(chan struct{})
		begin := time.Now()
		f, x := restored(m)
		if *x != "" || f.InUse() {
			t.Errorf("%q is restored", *x)
		}
		f.Save()
		if d := time.Since(begin); d > 2*stuck {
			t.Errorf("it took %s", d)
		}
		close(m.hangs)
		synctest.Wait()
	})
	if m.files[fileKey()] != "" {
		t.Error("the file is still there")
	}
}
