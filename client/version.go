package client

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"net/url"
	"path"
	"strconv"
	"strings"
)

// module is a file that pages import.
type module struct {
	data []byte
	etag string
}

// address is what a query asks for: ?client, ?client=1, ?client=presence, or ?client=presence@1.
type address struct {
	name    string // of a module other than the client itself, which contains the client
	version string // as it was written; "" is the newest
}

const (
	parameter = "client"
	presence  = "presence"
)

// parse returns what a query asks for, and whether it is one for the client at all. A page may have the route's path and a
// parameter of this name, so anything that does not look like a module or a version is left to the next handler.
func parse(query string) (address, bool) {
	if query == parameter {
		return address{}, true
	}
	value, ok := strings.CutPrefix(query, parameter+"=")
	if !ok || strings.Contains(value, "&") {
		return address{}, false
	}
	// As URLSearchParams of a browser writes it, the @ is escaped.
	value, err := url.QueryUnescape(value)
	if err != nil {
		return address{}, false
	}
	if name, version, ok := strings.Cut(value, "@"); name == presence {
		return address{name, version}, !ok || version != ""
	}
	isNumber := value != "" && strings.TrimLeft(value, "0123456789") == ""
	return address{version: value}, isNumber
}

// caching returns how browsers may keep what is at the address: what is at a version never changes.
func (a address) caching() string {
	if a.version == "" {
		return "no-cache" // with the Etag, this costs a request without a body
	}
	return "public, max-age=31536000, immutable"
}

// modules are those that are served, by their addresses.
type modules struct {
	modules map[address]module
	newest  int
}

// load reads the modules of all versions, versions/1/broadcast.min.js and so on.
func load(files fs.FS) modules {
	names, err := fs.Glob(files, "versions/*/*.min.js")
	if err != nil || len(names) == 0 {
		panic(fmt.Sprint("no client: ", err)) // they are embedded
	}
	all := modules{modules: make(map[address]module)}
	for _, name := range names {
		dir, file := path.Split(name)
		version, err := strconv.Atoi(path.Base(dir))
		if err != nil {
			panic(err)
		}
		data, err := fs.ReadFile(files, name)
		if err != nil {
			panic(err)
		}
		sum := sha256.Sum256(data)
		a := address{strings.TrimSuffix(file, ".min.js"), strconv.Itoa(version)}
		if a.name == "broadcast" {
			a.name = ""
		}
		all.modules[a] = module{data, `"` + hex.EncodeToString(sum[:12]) + `"`}
		all.newest = max(all.newest, version)
	}
	for _, name := range []string{"", presence} {
		all.modules[address{name: name}] = all.modules[address{name, strconv.Itoa(all.newest)}]
	}
	return all
}

// has says, to people, at which addresses a module is.
func (all modules) has(name string) string {
	newest := parameter
	pinned := parameter + "="
	if name != "" {
		newest += "=" + name
		pinned += name + "@"
	}
	var found []string
	for v := 1; v <= all.newest; v++ {
		if _, ok := all.modules[address{name, strconv.Itoa(v)}]; ok {
			found = append(found, "?"+pinned+strconv.Itoa(v))
		}
	}
	return strings.Join(found, ", ") + ", and the newest at ?" + newest
}
