package recipes

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"

	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
	"github.com/caddy-broadcast/caddy-broadcast/internal/subprocess"
)

// startSSH starts a server of SSH that lets this user in, as example.com, and whose shell finds the site's commands.
func (s *site) startSSH() (name string) {
	s.T.Helper()
	server, client := program(s.T, "sshd", "openssh-server"), program(s.T, "ssh", "openssh-client")
	for _, key := range []string{"host", "user"} {
		if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", filepath.Join(s.dir, key)).CombinedOutput(); err != nil {
			s.T.Fatal(err, string(out))
		}
	}
	os.MkdirAll("/run/sshd", 0o755) // which sshd needs as root, and the package's service makes
	me, err := user.Current()
	if err != nil {
		s.T.Fatal(err)
	}
	addr := caddytest.FreeAddr(s.T)
	config := s.write("sshd_config", fmt.Sprintf(`
		ListenAddress %s
		HostKey %[2]s/host
		AuthorizedKeysFile %[2]s/user.pub
		StrictModes no
		UsePAM no
		PidFile none
		PermitRootLogin yes
		SetEnv PATH=%[2]s/bin:%[3]s
		`, addr, s.dir, os.Getenv("PATH")))
	cmd := exec.Command(server, "-D", "-e", "-f", config)
	subprocess.DieWithParent(cmd)
	awaitListener(start(s.T, cmd), addr)
	s.write("ssh_config", fmt.Sprintf("Host example.com\nHostName 127.0.0.1\nPort %s\nIdentityFile %s/user\nStrictHostKeyChecking no\nUserKnownHostsFile /dev/null\nLogLevel ERROR\nIdentitiesOnly yes\nExitOnForwardFailure yes\n", port(addr), s.dir))
	s.write("bin/ssh", "#!/bin/sh\nexec "+client+" -F "+s.dir+"/ssh_config \"$@\"\n")
	return me.Username
}

func testPrivateInspector(r *recipe) {
	s := serve(r, "example.com {\n\tbroadcast /ws\n}\n")
	name := s.startSSH()

	// Both ends are on this machine, so they cannot have the same port. A terminal is forced, as the test has none.
	here, there := caddytest.FreeAddr(r), caddytest.FreePort(r)
	tunnel := s.follow(strings.Replace(r.get("sh", 0, "-L 2020:localhost:2020", "-L "+port(here)+":localhost:"+there, "user@", name+"@", "ssh -t", "ssh -tt"),
		"broadcast ui", "broadcast ui --listen localhost:"+there, 1))
	tunnel.wait("http://localhost:" + there)
	s.expect(strings.Replace(r.get("sh", 1), "2020", port(here), 1), "<title>", "caddy-broadcast")
	s.expect("curl -d hello -H 'Origin: http://localhost:"+port(here)+"' http://localhost:"+port(here)+"/broadcast/publish", `{"id":"`)
	s.expect("curl -d hello -H 'Origin: http://evil.example' http://localhost:"+port(here)+"/broadcast/publish", "only the inspector's own page")

	// The admin API checks the port too, so this end has another address instead.
	_, admin, _ := net.SplitHostPort(s.Admin)
	forward := s.follow(r.get("sh", 2, "2019:localhost:2019", "127.0.0.5:"+admin+":"+s.Admin, "user@", name+"@"))
	awaitListener(forward, "127.0.0.5:"+admin)
	s.write(".curlrc", "silent\nconnect-to = \""+s.Admin+":127.0.0.5:"+admin+"\"\n")
	s.expect(r.get("sh", 3), `"connections":0`)
}
