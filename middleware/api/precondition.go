package api

import (
	"net/http"
	"slices"
	"strings"
)

// entityTags are what an If-Match names.
type entityTags struct {
	all  bool // "*"
	tags []string
}

// ifMatch reads the If-Match of a request that has to have one (RFC 9110 13.1.1).
func ifMatch(h http.Header) (entityTags, error) {
	const most = 8 << 10 // bytes; a list of tags takes more memory than its text
	value := strings.Join(h["If-Match"], ",")
	if len(value) > most {
		return entityTags{}, invalidRequest(http.StatusBadRequest, "malformed_if_match", "If-Match is too long.")
	}
	if strings.Trim(value, " \t,") == "" {
		return entityTags{}, invalidRequest(http.StatusPreconditionRequired, "if_match_required",
			"This request needs If-Match with the ETag of the settings that it changes.")
	}
	if strings.Trim(value, " \t") == "*" {
		return entityTags{all: true}, nil
	}
	var tags entityTags
	for tag := range strings.SplitSeq(value, ",") {
		tag = strings.Trim(tag, " \t")
		if opaque, weak := strings.CutPrefix(tag, "W/"); weak && quoted(opaque) {
			continue // a weak validator matches nothing here (RFC 9110 8.8.3.2)
		}
		if tag != "" && !quoted(tag) {
			return entityTags{}, invalidRequest(http.StatusBadRequest, "malformed_if_match", `If-Match must be an ETag with its quotes, such as "3".`)
		}
		tags.tags = append(tags.tags, tag)
	}
	return tags, nil
}

// quoted reports whether s could be a tag of this API, none of which has a comma.
func quoted(s string) bool {
	return len(s) >= 2 && s[0] == '"' && s[len(s)-1] == '"' && !strings.Contains(s[1:len(s)-1], `"`)
}

// match reports whether tag is named.
func (t entityTags) match(tag string) bool { return t.all || slices.Contains(t.tags, tag) }
