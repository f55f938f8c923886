// Package buildinfo says from what the running program was built.
package buildinfo

import (
	"runtime/debug"
	"sync"
	"time"

	"golang.org/x/mod/module"
)

// Path is the path of this module.
const Path = "github.com/caddy-broadcast/caddy-broadcast"

// Devel is the version of a module that was built from a directory, as Go calls it.
const Devel = "(devel)"

// Info describes this module in a program.
type Info struct {
	// Version is that of a release, or the pseudo-version of a commit, or Devel.
	Version string `json:"version"`

	// Directory is where xcaddy took the module from, if it was told one (--with module@v0.0.0=directory). Which commit that was is
	// known to nobody: what Go records of version control concerns the main module, and that is one that xcaddy has generated.
	Directory string `json:"directory,omitempty"`

	// Commit is the commit, if it is known: all of it if the program was built in a checkout, or 12 digits of it from a
	// pseudo-version.
	Commit string `json:"commit,omitempty"`

	// Time is when the commit was made, or zero.
	Time time.Time `json:"time,omitzero"`

	// Modified is whether the checkout had changes that were not committed.
	Modified bool `json:"modified,omitempty"`
}

// Read returns what the running program knows of itself.
func Read() Info { return own() }

// own parses the list of all modules once, because each GET of the totals asks for the version.
var own = sync.OnceValue(func() Info {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return Info{Version: Devel} // it was built without modules
	}
	return of(info)
})

func of(info *debug.BuildInfo) Info {
	if info.Main.Path == Path {
		return ofMain(info)
	}
	for _, m := range info.Deps {
		if m.Path != Path {
			continue
		}
		if m.Replace == nil {
			return ofVersion(m.Version)
		}
		// A fork is at a version of its own. A directory is at none, and the version of what it replaces is made up.
		if m.Replace.Version != Devel {
			return ofVersion(m.Replace.Version)
		}
		return Info{Version: Devel, Directory: m.Replace.Path}
	}
	return Info{Version: Devel}
}

// ofVersion takes the commit from the version if that is a pseudo-version.
func ofVersion(version string) Info {
	v := Info{Version: version}
	if module.IsPseudoVersion(version) {
		// Errors leave them empty, and a version that Go has accepted has none.
		v.Commit, _ = module.PseudoVersionRev(version)
		v.Time, _ = module.PseudoVersionTime(version)
	}
	return v
}

// ofMain is for a program that was built in a checkout of this module. Go records the commit, unless it is run by `go run` or built
// with -buildvcs=false.
func ofMain(info *debug.BuildInfo) Info {
	v := Info{Version: info.Main.Version}
	if v.Version == "" {
		v.Version = Devel
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			v.Commit = s.Value
		case "vcs.time":
			v.Time, _ = time.Parse(time.RFC3339, s.Value) // zero if Go changes its form
		case "vcs.modified":
			v.Modified = s.Value == "true"
		}
	}
	return v
}
