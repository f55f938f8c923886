package resp

import (
	"regexp"
	"strings"
	"testing"

	"github.com/caddy-broadcast/caddy-broadcast/internal/redistest"
)

// What a server and its version answer differently. The arguments behind an unknown subcommand differ among versions.
var varying = strings.NewReplacer("HELLO <proto> AUTH", "HELLO AUTH", "7.0.0", "VERSION", "$6\r\n7.0.15", "$5\r\nVERSION")

var ids = regexp.MustCompile(`(\$2\r\nid\r\n:)\d+`)

// asRedis are bytes that the server and Redis answer with the same bytes. Each is followed by QUIT.
var asRedis = []struct{ name, send string }{
	{"ping", "PING\r\nping hello\r\nPING a b\r\n" + array("PING", "x")},
	{"echo", array("ECHO", "x y") + array("ECHO") + array("eChO", "")},
	{"quotes", `ECHO "a b\x41\n\t\"\q"` + "\r\n" + `ECHO 'it\'s \n'` + "\r\n" + `ECHO a"b"` + "\r\nECHO ''\r\n"},
	{"no closing quote", "ECHO \"a\r\n"},
	{"quotes inside", "ECHO \"a\"b\r\n"},
	{"lines", "PING\nPING\r\n\r\n\n   \r\nPING\r\n"},
	{"empty arrays", "*0\r\n*-1\r\nPING\r\n"},
	{"bad array length", "*x\r\n"},
	{"not a bulk", "*1\r\n:1\r\n"},
	{"bad bulk length", "*1\r\n$x\r\n"},
	{"negative bulk length", "*1\r\n$-1\r\n"},
	{"too long a bulk", "*1\r\n$1048577000\r\n"},
	{"unknown", "nope\r\n" + array("nope", "a", "b\r\nc") + array(strings.Repeat("x", 200), strings.Repeat("y", 100), strings.Repeat("z", 100), "w")},
	{"wrong number of arguments", "PUBLISH\r\nPUBLISH a\r\nPUBLISH a b c\r\nSELECT\r\nAUTH\r\nAUTH a b c d\r\nSUBSCRIBE\r\n"},
	{"select", "SELECT 0\r\nSELECT 15\r\nSELECT 16\r\nSELECT -1\r\nSELECT x\r\n"},
	{"client", "CLIENT GETNAME\r\nCLIENT SETNAME q\r\nCLIENT GETNAME\r\n" + array("CLIENT", "SETNAME", "a b") + array("CLIENT", "SETNAME", "") + "CLIENT GETNAME\r\n"},
	{"hello", "HELLO\r\nHELLO 2\r\nHELLO 3\r\nHELLO\r\nCLIENT GETNAME\r\nHELLO 2 SETNAME x\r\nCLIENT GETNAME\r\n"},
	{"wrong hello", "HELLO 4\r\nHELLO x\r\nHELLO 3 FOO\r\nHELLO 3 AUTH x\r\nHELLO 3 SETNAME\r\n" + array("HELLO", "3", "SETNAME", "a b")},
	{"login without a password", "AUTH x\r\nAUTH default x\r\nAUTH other x\r\nHELLO 3 AUTH default y\r\nHELLO 3 AUTH other x\r\n"},
	{"publish", "PUBLISH a b\r\n" + array("publish", "a", "b\r\nc") + "SPUBLISH a b\r\n"},
	{"subscribe", "SUBSCRIBE a b a\r\nPING\r\nPING x\r\nPUBLISH a b\r\necho x\r\nUNSUBSCRIBE b\r\nUNSUBSCRIBE b\r\nUNSUBSCRIBE\r\nUNSUBSCRIBE\r\nPING\r\nPUBLISH a b\r\n"},
	{"psubscribe", "PSUBSCRIBE a* b*\r\nSUBSCRIBE c\r\nPUNSUBSCRIBE a*\r\nUNSUBSCRIBE\r\nPUNSUBSCRIBE\r\nPUNSUBSCRIBE\r\n"},
	{"subscribe, RESP3", "HELLO 3\r\nSUBSCRIBE a b\r\nPING\r\nPING x\r\nUNSUBSCRIBE a b\r\nUNSUBSCRIBE\r\nPUNSUBSCRIBE\r\n"},
	{"publish to oneself", "HELLO 3\r\nSUBSCRIBE a\r\nPSUBSCRIBE a*\r\nPING\r\nPUBLISH a b\r\nPUBLISH b c\r\nPUBLISH aa c\r\nPING\r\n"},
	{"reset", "HELLO 3 SETNAME x\r\nSUBSCRIBE a\r\nRESET\r\nCLIENT GETNAME\r\nPUBLISH a b\r\nRESET x\r\n"},
	{"numsub", "PUBSUB NUMSUB\r\nPUBSUB NUMSUB a b\r\nPUBSUB SHARDNUMSUB a\r\nHELLO 3\r\nPUBSUB NUMSUB a\r\n"},
	{"multi", "MULTI\r\nPUBLISH a b\r\nPING\r\nECHO x\r\nEXEC\r\nEXEC\r\nMULTI\r\nMULTI\r\nDISCARD\r\nDISCARD\r\nMULTI\r\nEXEC\r\n"},
	{"multi with an error", "MULTI\r\nPUBLISH a b\r\nnope\r\nEXEC\r\nMULTI\r\nPUBLISH a\r\nEXEC\r\nPING\r\n"},
	{"multi and reset", "MULTI\r\nPING\r\nRESET\r\nPING\r\n"},
	{"an error behind answers", "PING\r\nPUBLISH a b\r\n*1\r\nx\r\nPING\r\n"},
	{"config", "CONFIG GET no-such-setting\r\nHELLO 3\r\nCONFIG GET no-such-setting\r\n"},
}

// asRedisWithPassword is for servers whose password is secret.
var asRedisWithPassword = []struct{ name, send string }{
	{"no login", "PING\r\nPUBLISH a b\r\nnope\r\nPUBLISH a\r\nSUBSCRIBE a\r\nMULTI\r\nHELLO\r\nHELLO 3\r\nRESET\r\n"},
	{"wrong", "AUTH x\r\nAUTH default x\r\nAUTH other secret\r\nHELLO 3 AUTH default x\r\nPING\r\n"},
	{"auth", "AUTH secret\r\nPING\r\nAUTH x\r\nPING\r\nAUTH default secret\r\n"},
	{"hello", "HELLO 3 AUTH default secret SETNAME x\r\nCLIENT GETNAME\r\nRESET\r\nPING\r\n"},
	{"hello that is wrong behind the login", "HELLO 3 AUTH default secret FOO\r\nPING\r\n"},
	{"login with a bad name", array("HELLO", "3", "AUTH", "default", "secret", "SETNAME", "a b") + "PING\r\n"},
	{"too many arguments", "*17\r\n"},
	{"too long an argument", "*1\r\n$16385000\r\n"},
	{"quit", "QUIT\r\n"},
}

// Whatever clients can see of what is served is as Redis has it, byte for byte.
func TestAsRedis(t *testing.T) {
	s := redistest.Start(t)
	if info := s.Do("INFO", "server"); !strings.Contains(info, "redis_version:7.0.") {
		t.Skip("other versions of Redis have other words: ", info)
	}
	_, ours := serve(t, Config{})
	compare(t, s.Addr(), ours, asRedis)
	_, ours = serve(t, Config{Password: "secret"})
	s = redistest.Start(t, "requirepass secret")
	compare(t, s.Addr(), ours, asRedisWithPassword)
}

func compare(t *testing.T, redis, ours string, rows []struct{ name, send string }) {
	t.Helper()
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			var answers [2]string
			for i, addr := range []string{redis, ours} {
				p := dial(t, addr)
				p.send(row.send, "QUIT\r\n")
				answers[i] = ids.ReplaceAllString(varying.Replace(p.rest()), "$1")
			}
			if answers[0] != answers[1] {
				t.Errorf("Redis and we answer differently:\n%q\n%q", answers[0], answers[1])
			}
		})
	}
}
