package doctor

import "fmt"

// State is what a finding means.
type State string

// States.
const (
	OK      State = "ok"
	Advice  State = "advice"  // it works, but something is better changed
	Problem State = "problem" // something is wrong
	Skipped State = "skipped" // it was not looked at, and Found says why
)

// Finding is what a check has found.
type Finding struct {
	Check string  `json:"check"`
	State State   `json:"state"`
	Found string  `json:"found"`           // a sentence, without its period
	Fix   string  `json:"fix,omitempty"`   // what to do
	Lines []Lines `json:"lines,omitempty"` // what to write to do it; if there are several, one of them is enough
}

// Lines are lines of a configuration, or commands.
type Lines struct {
	Of   string `json:"of"`           // what reads them: Caddyfile, nginx, shell …
	In   string `json:"in,omitempty"` // where they go
	Text string `json:"text"`
}

func ok(format string, args ...any) Finding {
	return Finding{State: OK, Found: fmt.Sprintf(format, args...)}
}

func advice(format string, args ...any) Finding {
	return Finding{State: Advice, Found: fmt.Sprintf(format, args...)}
}

func problem(format string, args ...any) Finding {
	return Finding{State: Problem, Found: fmt.Sprintf(format, args...)}
}

func skipped(format string, args ...any) Finding {
	return Finding{State: Skipped, Found: fmt.Sprintf(format, args...)}
}

// fixedBy adds what to do about a finding.
func (f Finding) fixedBy(fix string, lines ...Lines) Finding {
	f.Fix, f.Lines = fix, lines
	return f
}

func caddyfile(in, text string) Lines { return Lines{"Caddyfile", in, text} }
func nginx(in, text string) Lines     { return Lines{"nginx", in, text} }
func shell(text string) Lines         { return Lines{"shell", "", text} }
