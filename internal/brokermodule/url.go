package brokermodule

import (
	"fmt"
	"net/url"
	"regexp"
	"strings"
)

// loginOf finds a login in a URL whose placeholders, which may have any characters, are not expanded.
var loginOf = regexp.MustCompile(`^([a-z+]+://)((?:[^@/{:]|\{[^}]*\})*)(?::((?:[^@/{]|\{[^}]*\})*))?@`)

// SplitLogin takes the login out of a URL, before placeholders are expanded. What is not a placeholder in it is percent-decoded.
// It returns the text unchanged if there is no login, or if the whole URL is a placeholder.
func SplitLogin(text string) (rest, user, password string) {
	m := loginOf.FindStringSubmatch(text)
	if m == nil {
		return text, "", ""
	}
	user, err := decode(m[2])
	if err == nil {
		password, err = decode(m[3])
	}
	if err != nil {
		return text, "", "" // parsing it fails too, and says so
	}
	return m[1] + text[len(m[0]):], user, password
}

var placeholder = regexp.MustCompile(`\{[^}]*\}|[^{]+`)

// encodedBrace has a percent-encoded brace escaped, so that it does not begin a placeholder.
var encodedBrace = strings.NewReplacer("%7B", `\{`, "%7b", `\{`, "%7D", `\}`, "%7d", `\}`)

// decode percent-decodes what is not a placeholder.
func decode(text string) (decoded string, err error) {
	for _, piece := range placeholder.FindAllString(text, -1) {
		if piece[0] != '{' {
			if piece, err = url.PathUnescape(encodedBrace.Replace(piece)); err != nil {
				return "", fmt.Errorf("percent-encoding: %w", err)
			}
		}
		decoded += piece
	}
	return decoded, nil
}
