package route

import (
	"strings"
	"testing"
	"time"
)

// TestParseExpires: the forms that tokens and backends have, and what must not be taken for a time, or for never.
func TestParseExpires(t *testing.T) {
	at := time.Date(2033, 5, 18, 3, 33, 20, 0, time.UTC) // Unix 2000000000
	for s, want := range map[string]time.Time{
		"never":                     {},
		"2000000000":                at,
		" 2000000000\t":             at,
		"2e+09":                     at,
		"2000000000.5":              at.Add(time.Second / 2),
		"2033-05-18T03:33:20Z":      at,
		"2033-05-18T05:33:20+02:00": at,
		"2033-05-18T03:33:20.25Z":   at.Add(time.Second / 4),
		"0":                         time.Unix(0, 0),
		"-1":                        time.Unix(0, 0),
		"-Inf":                      time.Unix(0, 0),
		"253402300799":              time.Unix(lastUnix, 0),
		"0001-01-01T00:00:00Z":      time.Unix(0, 0),
		"1969-12-31T23:59:59Z":      time.Unix(0, 0),
	} {
		if got, err := parseExpires(s); err != nil || !got.Equal(want) || got.IsZero() != want.IsZero() {
			t.Errorf("%q: %v, %v", s, got, err)
		}
	}
	for _, s := range []string{
		"", " ", "Never", "null", "<nil>", "2000000000000", "253402300800", "Inf", "NaN", "1e999", "tomorrow", "2033-05-18", "Wed, 18 May 2033 03:33:20 GMT", "1h",
	} {
		if got, err := parseExpires(s); err == nil {
			t.Errorf("%q is %v", s, got)
		}
	}
}

// FuzzParseExpires: whatever a token has in it, what is accepted as a time is one, between 1970 and the year 9999.
func FuzzParseExpires(f *testing.F) {
	for _, s := range []string{"never", "2e9", "2033-05-18T03:33:20Z", "-1e308", "0x1p40", "1_000", "0001-01-01T00:00:00Z"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := parseExpires(s)
		if err != nil {
			return
		}
		if got.IsZero() {
			if strings.TrimSpace(s) != "never" {
				t.Fatalf("%q is taken for never", s)
			}
		} else if got.Unix() > lastUnix+86400 { // in the year 9999 somewhere
			t.Fatalf("%q is %v", s, got)
		}
	})
}
