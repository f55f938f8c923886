package integration

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
)

const reloads = 6

// TestReloadAndKeepAlive: publishers that keep their connections lose some to a reload. What they publish again with its
// key is there once, in order, by the route and by the admin API.
func TestReloadAndKeepAlive(t *testing.T) {
	s := caddytest.Start(t, "broadcast /ws")
	out := s.Dial("/ws", nil)
	publish := func(url, header string) {
		client := &http.Client{Transport: new(http.Transport)}
		defer client.CloseIdleConnections()
		var publishing sync.WaitGroup
		stop := make(chan struct{})
		var sent []string
		failed := 0
		publishing.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				text := fmt.Sprint(header, i)
				for try := 0; ; try++ {
					err := postOnce(client, url, text)
					if err == nil {
						break
					}
					if failed++; try == 20 {
						t.Errorf("%s: %v", url, err)
						return
					}
				}
				sent = append(sent, text)
			}
		})
		for i := range reloads {
			if err := s.Load(fmt.Sprintf("broadcast /ws\nrespond /n %d", i)); err != nil {
				t.Error(err)
			}
		}
		close(stop)
		publishing.Wait()
		t.Logf("%s: %d messages, %d requests failed in %d reloads", url, len(sent), failed, reloads)
		s.Expect(out, sent...)
	}
	publish("http://"+s.Addr+"/ws", "route ")
	publish("http://"+s.Admin+"/broadcast/publish", "admin ")
}

// postOnce publishes a text with itself as its key.
func postOnce(client *http.Client, url, text string) error {
	r, err := http.NewRequest(http.MethodPost, url, strings.NewReader(text))
	if err != nil {
		return err
	}
	r.GetBody = nil // nor does Go's client repeat it
	r.Header.Set("Content-Type", "text/plain")
	r.Header.Set("Idempotency-Key", text)
	resp, err := client.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	return nil
}

// TestReloadAndLines: `caddy broadcast publish --lines` loses no line to a reload, and repeats none.
func TestReloadAndLines(t *testing.T) {
	s := caddytest.Start(t, "broadcast /ws")
	out := s.Dial("/ws", nil)
	cmd := exec.Command(os.Args[0], "broadcast", "publish", "--lines", "--address", s.Admin)
	cmd.Env = append(os.Environ(), caddytest.AsCaddy+"=1")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var sent []string
	var writing sync.WaitGroup
	writing.Go(func() {
		defer stdin.Close()
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			text := fmt.Sprint("line ", i)
			if _, err := fmt.Fprintln(stdin, text); err != nil {
				t.Error(err)
				return
			}
			sent = append(sent, text)
			if i%100 == 99 {
				s.Expect(out, sent[i-99:]...) // so that it goes on all the time, and not only at the beginning
			}
		}
	})
	for i := range reloads {
		if err := s.Load(fmt.Sprintf("broadcast /ws\nrespond /n %d", i)); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	writing.Wait()
	s.Expect(out, sent[len(sent)/100*100:]...)
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v: %s", err, &stderr)
	}
}
