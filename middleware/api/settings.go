package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/keystile/keystile/middleware"
	"github.com/keystile/keystile/policy"
	"github.com/keystile/keystile/store"
)

// A settingsView are the settings of an organization in an answer, under the names
// of the original.
type settingsView struct {
	RestrictedAccessTokens bool      `json:"restrictedAccessTokens"`
	APITokenMaxAge         int64     `json:"apiTokenMaxAge"` // seconds (D21)
	APIAllowedIPs          []string  `json:"apiAllowedIPs"`  // the normal form (D19)
	Version                int64     `json:"version"`
	Warnings               []warning `json:"warnings"`
}

// A warning is something that people should look at again.
type warning struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

func (c *call) viewSettings(s *policy.Settings) settingsView {
	return settingsView{
		RestrictedAccessTokens: s.RestrictUsers,
		APITokenMaxAge:         int64(s.MaxAge / time.Second),
		APIAllowedIPs:          list(s.AllowedIPs.Lines()),
		Version:                s.Version,
		Warnings:               c.warnings(s),
	}
}

// warnings tells owners who would lock their own address out (D20). It does not keep
// them from it: the list binds keys, so that they can always undo it here.
func (c *call) warnings(s *policy.Settings) []warning {
	if !s.AllowedIPs.Restricts() || s.AllowedIPs.Contains(c.actor.Addr) {
		return []warning{}
	}
	whence := "Your own address is"
	if c.actor.Addr.IsValid() {
		whence = "Your own address, " + c.actor.Addr.String() + ", is"
	}
	return []warning{{"own_address_not_allowed", whence + " not in the list: API keys used from there are refused."}}
}

// showSettings answers with settings and their version as the validator that
// If-Match is compared with.
func (c *call) showSettings(s *policy.Settings) (*answer, error) {
	return &answer{status: http.StatusOK, etag: etag(s), data: c.viewSettings(s)}, nil
}

func etag(s *policy.Settings) string { return `"` + strconv.FormatInt(s.Version, 10) + `"` }

// getSettings serves GET /v1/org/token-settings.
func getSettings(c *call) (*answer, error) {
	s, err := c.mgr.Settings(c.r.Context(), c.user.Org)
	if err != nil {
		return nil, err
	}
	return c.showSettings(s)
}

// updateSettings serves PATCH /v1/org/token-settings: what is not given stays, and
// all that is given is written in one step or not at all (S24). If-Match is asked
// for, because settings that somebody else has changed meanwhile are not those that
// this owner wants to change.
func updateSettings(c *call) (*answer, error) {
	tags, err := ifMatch(c.r.Header)
	if err != nil {
		return nil, err
	}
	var change settingsChange
	if err := c.body(change.members()); err != nil {
		return nil, err
	}
	if change == (settingsChange{}) {
		return nil, errNothing
	}
	s, err := c.mgr.Settings(c.r.Context(), c.user.Org)
	if err != nil {
		return nil, err
	}
	if !tags.match(etag(s)) {
		c.refused(store.ErrConflict)
		return nil, conflict("version_conflict", "The settings were changed by somebody else meanwhile. Read them again.")
	}
	if s, err = c.mgr.UpdateSettings(c.r.Context(), c.actor, change.apply(s)); err != nil {
		return nil, err
	}
	return c.showSettings(s)
}

// A settingsChange are proposed settings; what is nil stays.
type settingsChange struct {
	restricted *bool
	maxAge     *time.Duration
	allowed    *policy.IPList
}

// members returns the members that a change is read from.
func (sc *settingsChange) members() members {
	return members{
		"restrictedAccessTokens": boolean(&sc.restricted),
		"apiTokenMaxAge":         readMaxAge(&sc.maxAge),
		"apiAllowedIPs":          readIPList(&sc.allowed),
	}
}

// apply returns s with the change.
func (sc *settingsChange) apply(s *policy.Settings) *policy.Settings {
	changed := *s
	if sc.restricted != nil {
		changed.RestrictUsers = *sc.restricted
	}
	if sc.maxAge != nil {
		changed.MaxAge = *sc.maxAge
	}
	if sc.allowed != nil {
		changed.AllowedIPs = *sc.allowed
	}
	return &changed
}

// readMaxAge reads a period in seconds (D21).
func readMaxAge(to **time.Duration) reader {
	return func(raw json.RawMessage) []middleware.FieldProblem {
		var seconds *int64
		if problems := integer(&seconds, func(int64) string { return "" })(raw); problems != nil {
			return problems
		}
		d, err := policy.MaxAgeFromSeconds(*seconds)
		if err != nil {
			return fieldProblems(err)
		}
		*to = &d
		return nil
	}
}

// readIPList reads a list of addresses, one line of D19 an element, so that a
// problem has the number of the element. An empty array is no restriction, and so
// is one of blank lines.
func readIPList(to **policy.IPList) reader {
	return func(raw json.RawMessage) []middleware.FieldProblem {
		var lines *[]string
		if problems := texts(&lines)(raw); problems != nil {
			return problems
		}
		for i, line := range *lines {
			if strings.ContainsAny(line, "\r\n") {
				return lineProblem(i+1, "contains a line break; give each line an element of its own")
			}
		}
		l, err := policy.ParseIPList(strings.Join(*lines, "\n"))
		if err != nil {
			return lineProblems(err)
		}
		*to = &l
		return nil
	}
}

func lineProblem(line int, message string) []middleware.FieldProblem {
	return []middleware.FieldProblem{{Line: line, Message: fmt.Sprintf("line %d: %s", line, message)}}
}

// lineProblems returns the problems of an error of policy.ParseIPList, one for each
// bad line (S24).
func lineProblems(err error) (problems []middleware.FieldProblem) {
	switch e := err.(type) { //nolint:errorlint // each error of the tree is looked at
	case *policy.LineError:
		return lineProblem(e.Line, e.Problem)
	case interface{ Unwrap() []error }:
		for _, err := range e.Unwrap() {
			problems = append(problems, lineProblems(err)...)
		}
		return problems
	}
	return problem("is too long")
}
