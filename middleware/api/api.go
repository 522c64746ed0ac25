package api

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"path"
	"slices"
	"strings"

	"github.com/keystile/keystile/middleware"
	"github.com/keystile/keystile/policy"
	"github.com/keystile/keystile/ratelimit"
	"github.com/keystile/keystile/store/audit"
	"github.com/keystile/keystile/store/keys"
)

// Options configure [New]. A nil *Options means the defaults.
type Options struct {
	// Failed is called with the request and the error for every answer 503, which
	// tells the client nothing of it. It runs on the path of the request. The error
	// contains no secret.
	// Defaults to none: such errors are dropped.
	Failed func(r *http.Request, err error)

	// Limiter is asked how the quota of a key stands, for GET /v1/usage, and spends
	// nothing. Where the Guard spends of a ratelimit.All, give the daily limiter in
	// it: the usage of a key is that of its day, whatever else has refused it.
	// Defaults to the Limiter of the Guard.
	Limiter ratelimit.Limiter

	// TrustedOrigins are the origins, as "https://console.example.com", of web pages
	// beside the service's own from which something may be changed, by a session or by
	// a JWT: see [http.CrossOriginProtection.AddTrustedOrigin]. A page elsewhere that
	// sends Bearer tokens needs it beside the host's CORS (D36); programs that are no
	// browsers do not.
	// Defaults to none.
	TrustedOrigins []string
}

// New returns the handler of the management API: see the package comment. Its
// paths begin with /v1; mount it as it is, or at a prefix of the host's choice by
// [http.StripPrefix]. Inside, guard decides who the caller is. So guard must have
// an Authenticator of people, since keys alone cannot manage anything, and what it
// requires of callers is required here too. No other Guard needs to stand around
// the handler, and one that spends quota should not: showing usage costs nothing
// (D5).
//
// The error reports everything that is wrong with the arguments, joined.
func New(mgr *keys.Manager, guard *middleware.Guard, opts *Options) (http.Handler, error) {
	var o Options
	if opts != nil {
		o = *opts
	}
	var errs []error
	if mgr == nil {
		errs = append(errs, errors.New("api: New without a Manager"))
	}
	if guard == nil {
		errs = append(errs, errors.New("api: New without a Guard"))
	}
	a := &api{
		mgr:         mgr,
		guard:       guard,
		people:      guard.With(policy.Via(policy.JWT, policy.Session)),
		limiter:     o.Limiter,
		failed:      o.Failed,
		crossOrigin: http.NewCrossOriginProtection(),
	}
	if a.limiter == nil {
		a.limiter = guard.Limiter()
	}
	for _, origin := range o.TrustedOrigins {
		if err := a.crossOrigin.AddTrustedOrigin(origin); err != nil {
			errs = append(errs, fmt.Errorf("api: Options.TrustedOrigins: %w", err))
		}
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	a.mount()
	return a, nil
}

// An api is the handler.
type api struct {
	mgr         *keys.Manager
	guard       *middleware.Guard // lets anybody in whom the host knows
	people      *middleware.Guard // persons only (S60, D25)
	limiter     ratelimit.Limiter // nil: nothing is counted
	failed      func(*http.Request, error)
	crossOrigin *http.CrossOriginProtection
	mux         *http.ServeMux
}

// A route is one operation of the OpenAPI document.
type route struct {
	method, path string
	serve        http.Handler
}

// routes returns all there is. Who may call an operation is bound to its handler,
// never decided by the path. With it stands the action that the trail has for
// a call that is refused here; one that gets to the Manager is audited there.
func (a *api) routes() []route {
	return []route{
		{"GET", "/v1/openapi.json", http.HandlerFunc(serveDocument)},
		{"GET", "/v1/me", a.person("", getAccount)},
		{"GET", "/v1/usage", a.guard.Authenticate(http.HandlerFunc(a.usage))},

		{"POST", "/v1/api-keys", a.person(audit.KeyCreate, createKey)},
		{"GET", "/v1/api-keys", a.person("", listKeys, "limit", "cursor")},
		{"GET", "/v1/api-keys/{prefix}", a.person("", getKey)},
		{"PATCH", "/v1/api-keys/{prefix}", a.person(audit.KeyUpdate, updateKey)},
		{"DELETE", "/v1/api-keys/{prefix}", a.person(audit.KeyRevoke, revokeKey)},
		{"POST", "/v1/api-keys/{prefix}/rotate", a.person(audit.KeyRotate, rotateKey)},
		{"GET", "/v1/api-keys/{prefix}/usage", a.person("", keyUsage)},

		{"GET", "/v1/org/token-settings", a.owner(audit.Authentication, getSettings)},
		{"PATCH", "/v1/org/token-settings", a.owner(audit.SettingsUpdate, updateSettings)},
		{"POST", "/v1/org/token-settings/preview", a.owner(audit.Authentication, previewSettings, "days")},
		{"GET", "/v1/org/api-keys", a.owner(audit.Authentication, listOrgKeys, "name", "creator", "status", "revoked", "limit", "cursor")},
		{"GET", "/v1/org/api-keys/{prefix}", a.owner(audit.Authentication, getOrgKey)},
		{"PATCH", "/v1/org/api-keys/{prefix}", a.owner(audit.KeyUpdate, updateOrgKey)},
		{"DELETE", "/v1/org/api-keys/{prefix}", a.owner(audit.KeyRevoke, revokeOrgKey)},
		{"GET", "/v1/org/api-keys/{prefix}/explain", a.owner(audit.Authentication, explainOrgKey, "address")},
		{"GET", "/v1/org/api-keys/{prefix}/usage", a.owner(audit.Authentication, orgKeyUsage)},
		{"GET", "/v1/org/users", a.owner(audit.Authentication, listUsers, "limit", "cursor")},
		{"PUT", "/v1/org/users/{user}/token-permission", a.owner(audit.UserPermission, grantPermission)},
		{"DELETE", "/v1/org/users/{user}/token-permission", a.owner(audit.UserPermission, withdrawPermission)},
	}
}

// mount makes the mux.
func (a *api) mount() {
	byPath := map[string]map[string]http.Handler{}
	for _, r := range a.routes() {
		if byPath[r.path] == nil {
			byPath[r.path] = map[string]http.Handler{}
		}
		byPath[r.path][r.method] = r.serve
		if r.method == http.MethodGet {
			byPath[r.path][http.MethodHead] = r.serve // net/http drops the body
		}
	}
	a.mux = http.NewServeMux()
	for p, methods := range byPath {
		a.mux.Handle(p, a.byMethod(methods))
	}
	a.mux.HandleFunc("/", a.unknown)
}

// ServeHTTP serves one request. A path that is not in its normal form is unknown:
// ServeMux would redirect it, to a place that does not have the prefix which the
// handler is mounted at, and clients exist that follow no redirect (S8).
func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if p := r.URL.EscapedPath(); !strings.HasPrefix(p, "/") || path.Clean(p) != p {
		a.unknown(w, r)
		return
	}
	a.mux.ServeHTTP(w, r)
}

func (a *api) unknown(w http.ResponseWriter, r *http.Request) {
	a.guard.Refuse(w, r, notFound("There is nothing at this address."))
}

// byMethod serves one path. What the path has is no secret, so a method that it
// does not have is refused before anybody asks who is calling.
func (a *api) byMethod(methods map[string]http.Handler) http.Handler {
	allow := strings.Join(slices.Sorted(maps.Keys(methods)), ", ")
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if h := methods[r.Method]; h != nil {
			h.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Allow", allow)
		a.guard.Refuse(w, r, invalidRequest(http.StatusMethodNotAllowed, "method_not_allowed", "This address does not have that method."))
	})
}
