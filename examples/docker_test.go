package examples_test

import (
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"go.yaml.in/yaml/v3"

	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
	"github.com/caddy-broadcast/caddy-broadcast/internal/chromium"
	"github.com/caddy-broadcast/caddy-broadcast/internal/subprocess"
)

// service is what the tests read of a service of compose.yaml.
type service struct {
	Ports       []string
	Expose      []string
	Environment map[string]string
	Volumes     []string
	Command     []string
	Healthcheck struct{ Test []string }
}

func composed(t *testing.T) map[string]service {
	t.Helper()
	text, err := os.ReadFile("docker/compose.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var file struct{ Services map[string]service }
	if err := yaml.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	return file.Services
}

// token is the secret of these tests.
const token = "s3cret"

// containers are the processes of compose.yaml, without containers: Caddy with the example's Caddyfile, and the app in Node. Only
// the addresses are others.
type containers struct {
	t              *testing.T
	site, internal string // host:port
	app            *exec.Cmd
}

func startContainers(t *testing.T) *containers {
	t.Helper()
	services := composed(t)
	node, err := exec.LookPath("node")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip("there is no Node: apt-get install nodejs")
	}
	c := &containers{t: t, site: "localhost:" + caddytest.FreePort(t), internal: "localhost:" + caddytest.FreePort(t)}
	app := "localhost:" + caddytest.FreePort(t)
	addresses := strings.NewReplacer("app:3000", app, "caddy:8090", c.internal, ":8090", ":"+port(c.internal))
	// What compose.yaml sets is set here, so that a name that the Caddyfile or the app does not know is noticed.
	values := strings.NewReplacer("${SITE:-http://localhost}", "http://"+c.site)
	secret := regexp.MustCompile(`\$\{PUBLISH_TOKEN:\?[^}]*\}`)
	environment := func(name string) (all []string) {
		for key, value := range services[name].Environment {
			value = addresses.Replace(values.Replace(secret.ReplaceAllString(value, token)))
			if strings.Contains(value, "$") {
				t.Fatalf("%s of %s is %s", key, name, value)
			}
			all = append(all, key+"="+value)
		}
		return all
	}
	for _, variable := range environment("caddy") {
		key, value, _ := strings.Cut(variable, "=")
		t.Setenv(key, value)
	}
	c.app = exec.Command(node, filepath.Join("docker", services["app"].Command[1]))
	subprocess.DieWithParent(c.app)
	c.app.Env = append(append(os.Environ(), environment("app")...), "PORT="+port(app))
	c.app.Stdout, c.app.Stderr = t.Output(), t.Output()
	if err := c.app.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.app.Process.Kill()
		c.app.Wait()
	})
	text, err := os.ReadFile("docker/caddy/Caddyfile")
	if err != nil {
		t.Fatal(err)
	}
	config := strings.Replace(string(text), "{\n", "{\n\tadmin localhost:"+caddytest.FreePort(t)+"\n\tpersist_config off\n", 1)
	caddytest.Run(t, addresses.Replace(config))
	for deadline := time.Now().Add(20 * time.Second); c.do("GET", c.site+"/health", "") != http.StatusOK; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) { // another process has no event
			t.Fatal("the app does not start")
		}
	}
	return c
}

func port(address string) string { return address[strings.LastIndex(address, ":")+1:] }

// do returns the status of a request.
func (c *containers) do(method, url, body string, header ...string) int {
	c.t.Helper()
	r, err := http.NewRequest(method, "http://"+url, strings.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		c.t.Fatal(err)
	}
	defer resp.Body.Close()
	io.Copy(io.Discard, resp.Body)
	return resp.StatusCode
}

// TestDocker: an order on one page is on all pages, and only the app publishes.
func TestDocker(t *testing.T) {
	c := startContainers(t)
	for name, want := range map[string]struct {
		status            int
		method, url, auth string
	}{
		"a page may not publish":             {403, "POST", c.site + "/ws", ""},
		"nor with the token":                 {403, "POST", c.site + "/ws", "Bearer " + token},
		"the site has no other route":        {404, "POST", c.site + "/publish/orders", "Bearer " + token},
		"the app publishes":                  {200, "POST", c.internal + "/publish/other", "Bearer " + token},
		"without a token":                    {401, "POST", c.internal + "/publish/other", ""},
		"with an empty token":                {401, "POST", c.internal + "/publish/other", "Bearer "},
		"with another token":                 {401, "POST", c.internal + "/publish/other", "Bearer " + token + "x"},
		"the publisher's port is not a site": {404, "GET", c.internal + "/", "Bearer " + token},
		"nothing can be read there":          {403, "GET", c.internal + "/publish/orders", "Bearer " + token},
		"health":                             {200, "GET", c.internal + "/health", ""},
	} {
		t.Run(name, func(t *testing.T) {
			header := []string{"Accept", "text/event-stream"}
			if want.auth != "" {
				header = append(header, "Authorization", want.auth)
			}
			if got := c.do(want.method, want.url, "x", header...); got != want.status {
				t.Errorf("%s %s: %d, not %d", want.method, want.url, got, want.status)
			}
		})
	}

	t.Run("pages", func(t *testing.T) {
		ctx := chromium.Open(t)
		if err := chromedp.Do(ctx); err != nil { // tabs are of a browser that runs
			t.Fatal(err)
		}
		e := &example{t: t, site: "http://" + c.site, ctx: ctx}
		a, b := e.open(), e.open()
		for _, p := range []page{a, b} {
			p.shows("#state", "open")
		}
		a.do(`document.getElementById("item").value = "<b>tea</b>"; document.forms[0].requestSubmit()`)
		for _, p := range []page{a, b, e.open()} { // the last one has it from the app
			p.shows("#orders li", "<b>tea</b>")
		}
		b.do(`document.getElementById("item").value = "coffee"; document.forms[0].requestSubmit()`)
		for _, p := range []page{a, b} {
			p.wait(`Array.from(document.querySelectorAll("#orders li"), li => li.textContent).join() == "coffee,<b>tea</b>"`)
		}
	})
}

// TestDockerWithoutToken: without a token in the environment, which compose.yaml refuses, nobody can publish.
func TestDockerWithoutToken(t *testing.T) {
	c := startContainers(t)
	os.Unsetenv("PUBLISH_TOKEN") // the placeholder is evaluated for each request; t.Setenv restores it
	for _, auth := range []string{"", "Bearer", "Bearer ", "Bearer " + token} {
		if got := c.do("POST", c.internal+"/publish/orders", "x", "Authorization", auth); got != http.StatusUnauthorized {
			t.Errorf("%q: %d", auth, got)
		}
	}
}

// TestCompose: what compose.yaml, the Dockerfile and the Caddyfile say of each other.
func TestCompose(t *testing.T) {
	read := func(name string) string {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	services, caddyfile, dockerfile := composed(t), read("docker/caddy/Caddyfile"), read("docker/Dockerfile")
	caddy, app := services["caddy"], services["app"]
	if want := []string{"80:80", "443:443", "443:443/udp"}; !slices.Equal(caddy.Ports, want) || len(app.Ports) > 0 {
		t.Errorf("the host has the ports %q and %q", caddy.Ports, app.Ports)
	}
	for _, want := range []string{"data:/data", "config:/config", "./caddy:/etc/caddy:ro"} {
		if !slices.Contains(caddy.Volumes, want) {
			t.Errorf("%q lacks %s", caddy.Volumes, want)
		}
	}
	if url := caddy.Healthcheck.Test[len(caddy.Healthcheck.Test)-1]; url != "http://127.0.0.1:8090/health" || !strings.Contains(caddyfile, "http://:8090 {\n\thandle /health {") {
		t.Errorf("health is at %s", url)
	}
	for _, m := range regexp.MustCompile(`\{(?:\$|env\.)(\w+)`).FindAllStringSubmatch(caddyfile, -1) {
		if _, ok := caddy.Environment[m[1]]; !ok {
			t.Errorf("the container has no %s", m[1])
		}
	}
	// The image has the Caddy that the module is tested with.
	version := regexp.MustCompile(`(?m)^ARG CADDY_VERSION=(.*)$`).FindStringSubmatch(dockerfile)
	if version == nil || !strings.Contains(read("../go.mod"), "\tgithub.com/caddyserver/caddy/v2 v"+version[1]+"\n") {
		t.Errorf("the Dockerfile has Caddy %q", version)
	}
	// And all brokers, as cmd/caddy has.
	for _, m := range regexp.MustCompile(`_ "(github\.com/caddy-broadcast/[^"]+)"`).FindAllStringSubmatch(read("../cmd/caddy/main.go"), -1) {
		if !regexp.MustCompile(`--with ` + regexp.QuoteMeta(m[1]) + `(@v0\.0\.0)? `).MatchString(dockerfile) {
			t.Errorf("the Dockerfile lacks %s", m[1])
		}
	}
}
