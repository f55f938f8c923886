package route

import "strings"

// escapeJSON escapes the braces of JSON objects in a text with placeholders. Caddy's replacer takes everything between braces
// for a placeholder, and one that it does not know becomes nothing, so a greeting like {"a": 1} would be empty. A placeholder
// begins with none of these characters (replacer.go, v2.11.9, has no limit, but neither has it such names).
func escapeJSON(text string) string {
	var b strings.Builder
	for i := range len(text) {
		if text[i] == '{' && (i == 0 || text[i-1] != '\\') && i+1 < len(text) && strings.IndexByte("\"} \t\r\n", text[i+1]) >= 0 {
			b.WriteByte('\\')
		}
		b.WriteByte(text[i])
	}
	return b.String()
}
