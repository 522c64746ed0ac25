package middleware

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/keystile/keystile/policy"
	"github.com/keystile/keystile/ratelimit"
)

// A Refusal is the answer to a request that a Guard does not let through, and
// the error of [Guard.Check] and [Guard.Admit]. It may be shared between
// requests, and so may the values of the header fields that it sets: do not change
// them in place. Header.Set and Header.Add do not.
//
// A handler may make one of its own, for what it refuses itself, and have it
// written by [Guard.Refuse]: Status, Code, Reason and Message are all it needs.
//
// Refusals of one reason are equal to the byte, whatever the credential was: an
// unknown token, a revoked one and another user's cannot be told apart (S73).
// No part of the request is repeated in them (S75).
type Refusal struct {
	Status  int           // of a Guard: 400, 401, 403, 429 or 503 (D13)
	Code    string        // for programs, by status: "Unauthorized" and so on (S68-S70, D3)
	Reason  policy.Reason // for programs, finer (D3)
	Message string        // for people

	// Quota is how the caller's quota stands, with status 429. Its RetryAfter is in
	// whole seconds, as the client is told (D4).
	Quota ratelimit.Result

	// Fields are what is wrong with the fields of a request. A Guard looks at no
	// body, so only Refusals of handlers have them.
	Fields []FieldProblem

	answer *answer    // of a Guard's own; nil: of a handler's
	limits *[3]string // of a limiter's refusal: RateLimit-Policy, RateLimit and Retry-After
	cause  error
}

// An answer is what is the same in all refusals of one reason.
type answer struct {
	header []headerField // but for those that every refusal has
	body   []byte        // as JSON (D1)
}

// A FieldProblem is one thing that is wrong with a request.
type FieldProblem struct {
	Field   string `json:"field"`          // the member or parameter
	Line    int    `json:"line,omitempty"` // of its value, counted from 1; 0: the whole of it
	Message string `json:"message"`        // for people; it never repeats the value
}

type headerField struct {
	name   string // canonical
	values []string
}

// Error returns the reason. It never contains anything of the request.
func (f *Refusal) Error() string { return "middleware: refused: " + string(f.Reason) }

// Unwrap returns what made a look-up or a limiter fail, with status 503: for
// logs, not for clients.
func (f *Refusal) Unwrap() error { return f.cause }

// Write answers the request: the status, every header field that the standards
// ask for, and the JSON body of D1, or, if the request's Accept header names it,
// application/problem+json (RFC 9457).
func (f *Refusal) Write(w http.ResponseWriter, r *http.Request) {
	f.writeHeader(w.Header())
	f.writeBody(w, r)
}

// writeHeader sets what every refusal has, whoever writes the body: the
// challenge of a 401 (RFC 9110 15.5.2), Retry-After, and that nobody may store
// or sniff it (D40). Values are shared between answers; their capacity is their
// length, so that a later Header.Add copies them.
func (f *Refusal) writeHeader(h http.Header) {
	delete(h, "Content-Length") // of another body
	h["Cache-Control"] = valueNoStore
	h["X-Content-Type-Options"] = valueNoSniff
	if f.Status != http.StatusTooManyRequests {
		delete(h, headerRateLimitPolicy) // of a Guard around the one that refuses (D4)
		delete(h, headerRateLimit)
	}
	if v := f.limits; v != nil {
		h[headerRateLimitPolicy], h[headerRateLimit], h[headerRetryAfter] = v[0:1:1], v[1:2:2], v[2:3:3]
	} else if f.answer != nil {
		for _, field := range f.answer.header {
			h[field.name] = field.values
		}
	}
}

func (f *Refusal) writeBody(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	if acceptsProblem(r.Header["Accept"]) {
		h["Content-Type"] = valueProblem
		w.WriteHeader(f.Status)
		_, _ = w.Write(f.problem()) // the client is gone: nothing is left to do
		return
	}
	var body []byte
	if f.answer != nil {
		body = f.answer.body
	} else {
		body = f.json()
	}
	h["Content-Type"] = valueJSON
	w.WriteHeader(f.Status)
	_, _ = w.Write(body)
}

// json returns the body of D1.
func (f *Refusal) json() []byte {
	type detail struct {
		Code    string         `json:"code"`
		Reason  policy.Reason  `json:"reason"`
		Message string         `json:"message"`
		Fields  []FieldProblem `json:"fields,omitempty"`
	}
	b, _ := json.Marshal(struct { // strings and numbers only: cannot fail
		Success bool   `json:"success"`
		Status  int    `json:"status"`
		Message string `json:"message"`
		Error   detail `json:"error"`
	}{false, f.Status, f.Message, detail{f.Code, f.Reason, f.Message, f.Fields}})
	return b
}

var (
	valueJSON    = []string{"application/json; charset=utf-8"}
	valueProblem = []string{"application/problem+json"}
	valueNoStore = []string{"no-store"}
	valueNoSniff = []string{"nosniff"}
)

// acceptsProblem reports whether an Accept field names application/problem+json
// with a weight that is not zero. A wildcard does not name it (D1).
func acceptsProblem(lines []string) bool {
	const most = 8 << 10 // bytes; a client that sends more gets JSON
	size := 0
	for _, line := range lines {
		if size += len(line) + 1; size > most {
			return false
		}
		for item := range strings.SplitSeq(line, ",") {
			media, params, _ := strings.Cut(item, ";")
			if strings.EqualFold(strings.TrimSpace(media), "application/problem+json") {
				return !zeroWeight(params)
			}
		}
	}
	return false
}

// zeroWeight reports whether the parameters have a q of 0, 0.0, 0.00 or 0.000
// (RFC 9110 12.4.2).
func zeroWeight(params string) bool {
	for p := range strings.SplitSeq(params, ";") {
		name, value, _ := strings.Cut(strings.TrimSpace(p), "=")
		if strings.EqualFold(name, "q") {
			return strings.Trim(value, "0.") == "" && strings.HasPrefix(value, "0")
		}
	}
	return false
}

// problem returns the body as RFC 9457 has it. It is made on demand: clients
// that ask for it are rare.
func (f *Refusal) problem() []byte {
	p := struct {
		Type     string         `json:"type"`
		Title    string         `json:"title"`
		Status   int            `json:"status"`
		Detail   string         `json:"detail"`
		Code     string         `json:"code"`
		Reason   policy.Reason  `json:"reason"`
		Fields   []FieldProblem `json:"fields,omitempty"`
		Policies []string       `json:"violated-policies,omitempty"`
	}{"about:blank", http.StatusText(f.Status), f.Status, f.Message, f.Code, f.Reason, f.Fields, nil}
	if f.Status == http.StatusTooManyRequests {
		// The problem type of draft-ietf-httpapi-ratelimit-headers.
		p.Type = "https://iana.org/assignments/http-problem-types#quota-exceeded"
		p.Title = "Request cannot be satisfied as assigned quota has been exceeded"
		if f.Quota.Name != "" {
			p.Policies = []string{f.Quota.Name}
		}
	}
	b, _ := json.Marshal(p) // strings and numbers only: cannot fail
	return b
}

// newRefusal makes the refusal of a reason. Its status and code follow from the
// reason; one that a host's own policy brought answers 403.
func newRefusal(reason policy.Reason, realm string) *Refusal {
	f := &Refusal{Reason: reason, answer: new(answer)}
	switch reason {
	case policy.NoCredentials:
		f.Status, f.Message = http.StatusUnauthorized, "This request needs an API key or another credential."
	case policy.InvalidToken:
		f.Status, f.Message = http.StatusUnauthorized, "The credential is not valid."
	case policy.Expired:
		f.Status, f.Message = http.StatusUnauthorized, "The credential has expired."
	case policy.MultipleCredentials:
		f.Status, f.Message = http.StatusBadRequest, "Send exactly one credential, once."
	case policy.UserNotPermitted:
		f.Status, f.Message = http.StatusForbidden, "The user of this API key has no permission to use API keys."
	case policy.KeyDisabled:
		f.Status, f.Message = http.StatusForbidden, "The API key was disabled by an owner."
	case policy.AddressNotAllowed:
		f.Status, f.Message = http.StatusForbidden, "This request may not be made from this address."
	case policy.InsufficientScope:
		f.Status, f.Message = http.StatusForbidden, "The credential lacks a scope that this request needs."
	case policy.WrongCredentialKind:
		f.Status, f.Message = http.StatusForbidden, "This request cannot be made with this kind of credential."
	case policy.TierNotAllowed:
		f.Status, f.Message = http.StatusForbidden, "The tier of this user does not allow this request."
	case policy.DailyLimit:
		f.Status, f.Message = http.StatusTooManyRequests, "The daily request limit of the API key is reached."
	case policy.BurstLimit:
		f.Status, f.Message = http.StatusTooManyRequests, "Too many requests with this API key at once."
	case policy.StoreUnavailable:
		f.Status, f.Message = http.StatusServiceUnavailable, "The request cannot be checked now. Try again."
	default:
		f.Status, f.Message = http.StatusForbidden, "This request is not allowed."
	}
	switch f.Status {
	case http.StatusBadRequest:
		f.Code = "InvalidRequest"
	case http.StatusUnauthorized:
		f.Code = "Unauthorized"
		f.answer.header = []headerField{{"Www-Authenticate", []string{challenge(realm, reason)}}}
	case http.StatusForbidden:
		f.Code = "Forbidden"
	case http.StatusTooManyRequests:
		f.Code = "RateLimitExceeded"
		f.answer.header = []headerField{{headerRetryAfter, []string{"1"}}} // of a policy; a limiter knows better
	case http.StatusServiceUnavailable:
		f.Code = "Unavailable"
		f.answer.header = []headerField{{headerRetryAfter, []string{"1"}}}
	}
	f.answer.body = f.json()
	return f
}

// challenge returns the value of WWW-Authenticate. It has an error only if
// something was presented (RFC 6750 section 3.1, D14).
func challenge(realm string, reason policy.Reason) string {
	c := `Bearer realm="` + realm + `"`
	if reason != policy.NoCredentials {
		c += `, error="invalid_token"`
	}
	return c
}

// refusals are the refusals of a Guard that need nothing of the request, made
// once: those that come in masses first, because they are searched one by one.
type refusals struct {
	realm string
	made  []*Refusal
}

func newRefusals(realm string) refusals {
	rs := refusals{realm: realm}
	for _, reason := range []policy.Reason{
		policy.InvalidToken, policy.DailyLimit, policy.BurstLimit, policy.NoCredentials, policy.AddressNotAllowed,
		policy.Expired, policy.StoreUnavailable, policy.KeyDisabled, policy.UserNotPermitted,
		policy.InsufficientScope, policy.WrongCredentialKind, policy.TierNotAllowed, policy.MultipleCredentials,
	} {
		rs.made = append(rs.made, newRefusal(reason, realm))
	}
	return rs
}

func (rs *refusals) of(reason policy.Reason) *Refusal {
	for _, f := range rs.made {
		if f.Reason == reason {
			return f
		}
	}
	return newRefusal(reason, rs.realm)
}

// failed returns the refusal of a request that nobody can judge.
func (rs *refusals) failed(cause error) *Refusal {
	f := *rs.of(policy.StoreUnavailable)
	f.cause = cause
	return &f
}

// overQuota returns the refusal of a request over a limit, by a result whose
// RetryAfter is in whole seconds: two allocations, of the refusal with its header
// fields and of their text.
func (rs *refusals) overQuota(result *ratelimit.Result, policyField string) *Refusal {
	reason := policy.BurstLimit
	if result.Name == ratelimit.DailyName {
		reason = policy.DailyLimit
	}
	seconds := int64(result.RetryAfter / time.Second)
	var buf [64]byte
	field := appendRateLimit(buf[:0], result, seconds)
	split := len(field)
	text := string(strconv.AppendInt(field, seconds, 10))
	q := &struct {
		Refusal
		fields [3]string
	}{*rs.of(reason), [3]string{policyField, text[:split], text[split:]}}
	q.Quota, q.limits = *result, &q.fields
	return &q.Refusal
}

// wholeSeconds rounds d up to whole seconds, from 1 to a day (D4).
func wholeSeconds(d time.Duration) int64 {
	const day = 24 * 60 * 60
	switch {
	case d <= time.Second:
		return 1
	case d >= day*time.Second:
		return day
	}
	return int64((d + time.Second - 1) / time.Second)
}
