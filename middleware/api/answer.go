package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/keystile/keystile/middleware"
	"github.com/keystile/keystile/policy"
	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/store/keys"
)

// An answer is what a success is answered by.
type answer struct {
	status int
	etag   string // none if empty
	data   any
}

// write writes the envelope of D2, which has no message at the top. Nobody may
// store or sniff it (D29, D40).
func (a *answer) write(w http.ResponseWriter) {
	body, _ := json.Marshal(struct { // of types made here, which marshal: cannot fail
		Success bool `json:"success"`
		Data    any  `json:"data"`
	}{true, a.data})
	h := w.Header()
	h.Set("Content-Type", "application/json; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	if a.etag != "" {
		h.Set("ETag", a.etag)
	}
	w.WriteHeader(a.status)
	_, _ = w.Write(body) // the client is gone: nothing is left to do
}

func ok(data any) (*answer, error) { return &answer{status: http.StatusOK, data: data}, nil }

// done is the answer to what leaves nothing to show.
func done(message string) (*answer, error) {
	return ok(struct {
		Message string `json:"message"`
	}{message})
}

// A timestamp is a time in an answer: RFC 3339 in UTC, null if there is none (D1).
type timestamp struct{ time.Time }

// MarshalJSON implements [json.Marshaler].
func (t timestamp) MarshalJSON() ([]byte, error) {
	if t.IsZero() {
		return []byte("null"), nil
	}
	return []byte(`"` + t.UTC().Format(time.RFC3339Nano) + `"`), nil
}

// The refusals of this package. What is not an error of authentication, which the
// Guard answers, has a code by its status (D3).

func invalidRequest(status int, reason policy.Reason, message string) *middleware.Refusal {
	return &middleware.Refusal{Status: status, Code: "InvalidRequest", Reason: reason, Message: message}
}

func forbidden(reason policy.Reason, message string) *middleware.Refusal {
	return &middleware.Refusal{Status: http.StatusForbidden, Code: "Forbidden", Reason: reason, Message: message}
}

func notFound(message string) *middleware.Refusal {
	return &middleware.Refusal{Status: http.StatusNotFound, Code: "NotFound", Reason: "not_found", Message: message}
}

func conflict(reason policy.Reason, message string) *middleware.Refusal {
	return &middleware.Refusal{Status: http.StatusConflict, Code: "Conflict", Reason: reason, Message: message}
}

// invalidFields returns the refusal of a request for those problems, of which there
// is at least one. Its message repeats the first, for people.
func invalidFields(problems []middleware.FieldProblem) *middleware.Refusal {
	message := problems[0].Message
	if name := problems[0].Field; name != "" {
		message = name + ": " + message
	}
	if more := len(problems) - 1; more > 0 {
		message += fmt.Sprintf(" (and %d more)", more)
	}
	return &middleware.Refusal{
		Status: http.StatusBadRequest, Code: "ValidationError", Reason: "invalid_fields",
		Message: "The request is not valid: " + message + ".", Fields: problems,
	}
}

func invalidField(field, problem string) *middleware.Refusal {
	return invalidFields([]middleware.FieldProblem{{Field: field, Message: problem}})
}

var (
	errSuspended = forbidden("user_suspended", "This user is suspended.")
	errNoKey     = notFound("There is no such API key.")
)

// refuse answers a call that ended with err: a refusal of this package, or an error
// of the Manager. The answer never contains err.
func (c *call) refuse(err error) {
	f := refusalOf(err)
	if f == nil {
		f = &middleware.Refusal{
			Status: http.StatusServiceUnavailable, Code: "Unavailable", Reason: policy.StoreUnavailable,
			Message: "The request cannot be served now. Try again.",
		}
		c.report(err)
	}
	c.guard.Refuse(c.w, c.r, f)
}

// report tells the host of a failure.
func (c *call) report(err error) {
	if c.failed != nil {
		c.failed(c.r, err)
	}
}

// refusalOf returns the refusal that err is, or nil if it is a failure: what a
// store does not answer is a failure, and so is what is not known here (S76).
func refusalOf(err error) *middleware.Refusal {
	if f, is := errors.AsType[*middleware.Refusal](err); is {
		return f
	}
	if f, is := errors.AsType[*keys.LimitError](err); is {
		reason, message := policy.Reason("token_limit"), "The limit of %d API keys per user is reached. Revoke one to make room."
		if f.Grace {
			reason, message = "grace_limit", "%d replaced API keys still work, which is the limit. Revoke one of them, or rotate without a grace."
		}
		return &middleware.Refusal{
			Status: http.StatusConflict, Code: "TokenLimitReached", Reason: reason, Message: fmt.Sprintf(message, f.Limit),
		}
	}
	if problems := fieldProblems(err); problems != nil {
		return invalidFields(problems)
	}
	switch {
	case errors.Is(err, keys.ErrAudit):
		return nil // whatever else it may be
	case errors.Is(err, keys.ErrNotPermitted):
		return forbidden(policy.UserNotPermitted, "This user has no permission to use API keys.")
	case errors.Is(err, keys.ErrTier):
		return forbidden(policy.TierNotAllowed, "The tier of this user does not include API keys.")
	case errors.Is(err, keys.ErrSuspended):
		return errSuspended
	case errors.Is(err, keys.ErrNotActive):
		return conflict("not_active", "The API key is not active.")
	case errors.Is(err, store.ErrNotFound):
		return errNoKey
	case errors.Is(err, store.ErrConflict):
		return conflict("version_conflict", "It was changed by somebody else meanwhile. Read it again.")
	}
	return nil
}

// names are the members and parameters of this API by the fields of the Manager.
var names = map[string]string{
	"Name": "name", "Scopes": "scopes", "DailyLimit": "dailyLimit", "NotAfter": "expiresAt", "Grace": "grace",
	"After": "cursor", "Limit": "limit", "Creator": "creator", "Settings.MaxAge": "apiTokenMaxAge",
}

// fieldProblems returns the problems with fields that err joins.
func fieldProblems(err error) (problems []middleware.FieldProblem) {
	switch e := err.(type) { //nolint:errorlint // each error of the tree is looked at
	case *keys.FieldError:
		problems = append(problems, middleware.FieldProblem{Field: names[e.Field], Message: e.Problem})
	case *policy.FieldError:
		problems = append(problems, middleware.FieldProblem{Field: names[e.Field], Message: e.Problem})
	case interface{ Unwrap() error }:
		return fieldProblems(e.Unwrap())
	case interface{ Unwrap() []error }:
		for _, err := range e.Unwrap() {
			problems = append(problems, fieldProblems(err)...)
		}
	}
	return problems
}
