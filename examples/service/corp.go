package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/keystile/keystile/middleware"
	"github.com/keystile/keystile/policy"
	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/store/audit"
	"github.com/keystile/keystile/store/keys"
)

const corpBase = "/api/v0"

// A corpAPI is the API in the shape of the first source system: organizations
// are corps, keys are API tokens. Clients of that system send whole objects back,
// so unknown members are ignored and If-Match is optional. What the original
// lets a token read, a token reads here; management is for people.
type corpAPI struct {
	mgr    *keys.Manager
	guard  *middleware.Guard
	people people
	mux    *http.ServeMux
}

func newCorpAPI(mgr *keys.Manager, guard *middleware.Guard, ps people) http.Handler {
	c := &corpAPI{mgr: mgr, guard: guard, people: ps, mux: http.NewServeMux()}
	// Reading is metered for tokens, as every use of them is.
	reads := func(h http.HandlerFunc) http.Handler { return guard.Wrap(h) }
	persons := guard.With(policy.Via(policy.JWT, policy.Session))
	csrf := http.NewCrossOriginProtection()
	// What is refused is in the trail under action, unless that is empty.
	manages := func(action string, h func(http.ResponseWriter, *http.Request, keys.Actor)) http.Handler {
		return persons.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			actor, suspended, err := c.actor(r)
			if err != nil {
				c.fail(w, r, err)
				return
			}
			// A session is sent by browsers unasked, and so is a JWT that a proxy adds.
			switch {
			case csrf.Check(r) != nil:
				c.refused(r, action, actor, keys.ErrCrossOrigin)
				c.refuse(w, r, http.StatusForbidden, "Forbidden", "cross_origin", "This request comes from another site.")
			case suspended:
				c.refused(r, action, actor, keys.ErrSuspended)
				c.fail(w, r, keys.ErrSuspended)
			default:
				h(w, r, actor)
			}
		}))
	}
	c.mux.Handle("GET "+corpBase+"/corps", reads(c.listCorps))
	c.mux.Handle("GET "+corpBase+"/corps/{corp}", reads(c.getCorp))
	c.mux.Handle("PATCH "+corpBase+"/corps/{corp}", manages(audit.SettingsUpdate, c.updateCorp))
	c.mux.Handle("GET "+corpBase+"/corps/{corp}/users", reads(c.listUsers))
	c.mux.Handle("GET "+corpBase+"/corps/{corp}/users/{email}", reads(c.getUser))
	c.mux.Handle("PATCH "+corpBase+"/corps/{corp}/users/{email}", manages(audit.UserPermission, c.updateUser))
	c.mux.Handle("GET "+corpBase+"/user/apitokens", manages("", c.listTokens))
	c.mux.Handle("POST "+corpBase+"/user/apitokens", manages(audit.KeyCreate, c.createToken))
	c.mux.Handle("DELETE "+corpBase+"/user/apitokens/{prefix}", manages(audit.KeyRevoke, c.deleteToken))
	c.mux.Handle(corpBase+"/user/apitokens", manages("", c.noMethod))
	c.mux.Handle(corpBase+"/user/apitokens/", manages("", c.noMethod))
	c.mux.Handle("/", guard.Authenticate(http.HandlerFunc(c.notFound)))
	return c.mux
}

// created stands for when a corp or a user was made, which is not kept: clients want
// a time, and the same one at each start and on each node.
const created = "1970-01-01T00:00:00Z"

type uri struct {
	URI string `json:"uri"`
}

// A corp has the members that were seen of the original.
type corp struct {
	Name                   string   `json:"name"`
	DisplayName            string   `json:"displayName"`
	SmallIconURI           string   `json:"smallIconURI"`
	Created                string   `json:"created"`
	SiteLimit              int      `json:"siteLimit"`
	Sites                  uri      `json:"sites"`
	AuthType               string   `json:"authType"`
	SessionMaxAgeDashboard int      `json:"sessionMaxAgeDashboard"`
	APIAllowedIPs          []string `json:"apiAllowedIPs"`
	APITokenMaxAge         int64    `json:"apiTokenMaxAge"`
	RestrictedAccessTokens bool     `json:"restrictedAccessTokens"`
}

func (c *corpAPI) corp(s *policy.Settings) corp {
	lines := s.AllowedIPs.Lines()
	if lines == nil {
		lines = []string{}
	}
	return corp{
		Name: s.Org, DisplayName: s.Org, Created: created,
		Sites: uri{corpBase + "/corps/" + url.PathEscape(s.Org) + "/sites"}, AuthType: "local",
		APIAllowedIPs: lines, APITokenMaxAge: int64(s.MaxAge / time.Second), RestrictedAccessTokens: s.RestrictUsers,
	}
}

// A corpUser has the members that were seen of the original. Memberships are an
// address only: the vendor's client expects texts there.
type corpUser struct {
	Name               string `json:"name"`
	Email              string `json:"email"`
	Memberships        uri    `json:"memberships"`
	AccessTokens       uri    `json:"accessTokens"`
	Role               string `json:"role"`
	Status             string `json:"status"`
	MFAEnabled         bool   `json:"mfaEnabled"`
	Created            string `json:"created"`
	APIUser            bool   `json:"apiUser"`
	AccessTokenAllowed bool   `json:"accessTokenAllowed"`
}

func (c *corpAPI) user(u *store.User, s *policy.Settings) corpUser {
	role := roleUser
	if p, ok := c.people[u.ID]; ok && p.org == u.Org {
		role = p.role
	}
	if u.Owner {
		role = roleOwner
	}
	status := "active"
	if !u.SuspendedAt.IsZero() {
		status = "suspended"
	}
	email := emailOf(u)
	base := corpBase + "/corps/" + url.PathEscape(u.Org) + "/users/" + url.PathEscape(email)
	return corpUser{
		Name: u.ID, Email: email, Memberships: uri{base + "/memberships"},
		AccessTokens: uri{corpBase + "/user/apitokens"}, Role: role, Status: status,
		Created: created, AccessTokenAllowed: !s.RestrictUsers || u.Permitted,
	}
}

func emailOf(u *store.User) string {
	if u.Email == "" {
		return u.ID
	}
	return u.Email
}

func (c *corpAPI) listCorps(w http.ResponseWriter, r *http.Request) {
	if s, ok := c.settings(w, r); ok {
		answer(w, http.StatusOK, map[string]any{"data": []corp{c.corp(s)}})
	}
}

func (c *corpAPI) getCorp(w http.ResponseWriter, r *http.Request) {
	if s, ok := c.ownCorp(w, r); ok {
		w.Header().Set("ETag", etag(s))
		answer(w, http.StatusOK, c.corp(s))
	}
}

// etag is the version of settings. If-Match is optional here, and holds if it is
// sent.
func etag(s *policy.Settings) string { return strconv.Quote(strconv.FormatInt(s.Version, 10)) }

// matches reports whether one of the tags of an If-Match is the current one, or
// whether there are none (RFC 9110 13.1.1). The tags of this API have no commas.
func matches(header []string, current string) bool {
	if len(header) == 0 {
		return true
	}
	for tag := range strings.SplitSeq(strings.Join(header, ","), ",") {
		if tag = strings.TrimSpace(tag); tag == current || tag == "*" {
			return true
		}
	}
	return false
}

func (c *corpAPI) updateCorp(w http.ResponseWriter, r *http.Request, actor keys.Actor) {
	s, ok := c.ownCorp(w, r)
	if !ok || !c.owner(w, r, audit.SettingsUpdate, actor, "") {
		return
	}
	if !matches(r.Header.Values("If-Match"), etag(s)) {
		c.mgr.Refused(r.Context(), audit.SettingsUpdate, actor, keys.Ref{Org: s.Org}, store.ErrConflict)
		c.fail(w, r, store.ErrConflict)
		return
	}
	body, ok := c.read(w, r)
	if !ok {
		return
	}
	now := c.corp(s)
	err := errors.Join(
		member(body, "restrictedAccessTokens", &now.RestrictedAccessTokens),
		member(body, "apiTokenMaxAge", &now.APITokenMaxAge),
		member(body, "apiAllowedIPs", &now.APIAllowedIPs),
	)
	var next *policy.Settings
	if err == nil {
		next, err = parseSettings(s.Org, now.RestrictedAccessTokens, now.APITokenMaxAge, now.APIAllowedIPs)
	}
	if err != nil {
		c.refuse(w, r, http.StatusBadRequest, "ValidationError", "invalid_field", err.Error())
		return
	}
	next.Version = s.Version
	saved, err := c.mgr.UpdateSettings(r.Context(), actor, next)
	if err != nil {
		c.fail(w, r, err)
		return
	}
	w.Header().Set("ETag", etag(saved))
	answer(w, http.StatusOK, c.corp(saved))
}

func (c *corpAPI) listUsers(w http.ResponseWriter, r *http.Request) {
	s, ok := c.ownCorp(w, r)
	if !ok {
		return
	}
	users, err := c.users(r, s.Org)
	if err != nil {
		c.fail(w, r, err)
		return
	}
	shown := make([]corpUser, 0, len(users))
	for _, u := range users {
		shown = append(shown, c.user(u, s))
	}
	answer(w, http.StatusOK, map[string]any{"data": shown})
}

func (c *corpAPI) getUser(w http.ResponseWriter, r *http.Request) {
	s, ok := c.ownCorp(w, r)
	if !ok {
		return
	}
	if u, ok := c.userByEmail(w, r, s.Org); ok {
		answer(w, http.StatusOK, c.user(u, s))
	}
}

// userByEmail returns the user of a corp that the path names.
func (c *corpAPI) userByEmail(w http.ResponseWriter, r *http.Request, org string) (*store.User, bool) {
	users, err := c.users(r, org)
	if err != nil {
		c.fail(w, r, err)
		return nil, false
	}
	email := r.PathValue("email")
	for _, same := range []func(a, b string) bool{func(a, b string) bool { return a == b }, equalFold} {
		var found []*store.User
		for _, u := range users {
			if same(emailOf(u), email) {
				found = append(found, u)
			}
		}
		switch len(found) {
		case 0:
			continue
		case 1:
			return found[0], true
		}
		c.refuse(w, r, http.StatusConflict, "Conflict", "ambiguous_email", "Several users have this e-mail.")
		return nil, false
	}
	c.notFound(w, r)
	return nil, false
}

// equalFold reports whether two e-mails are the same but for the case of ASCII
// letters (D15).
func equalFold(a, b string) bool {
	lower := func(c rune) rune {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		return c
	}
	return strings.Map(lower, a) == strings.Map(lower, b)
}

// updateUser sets the grant. A client that sends a whole user back did not mean
// the grant unless it differs from what it was shown: that is true for everybody
// while there is no restriction.
func (c *corpAPI) updateUser(w http.ResponseWriter, r *http.Request, actor keys.Actor) {
	s, ok := c.ownCorp(w, r)
	if !ok {
		return
	}
	user, ok := c.userByEmail(w, r, s.Org)
	if !ok || !c.owner(w, r, audit.UserPermission, actor, user.ID) {
		return
	}
	body, ok := c.read(w, r)
	if !ok {
		return
	}
	shown := c.user(user, s).AccessTokenAllowed
	allowed := shown
	if err := member(body, "accessTokenAllowed", &allowed); err != nil {
		c.refuse(w, r, http.StatusBadRequest, "ValidationError", "invalid_field", err.Error())
		return
	}
	if _, ok := body["accessTokenAllowed"]; ok {
		if len(body) == 1 || allowed != shown {
			if err := c.mgr.SetPermitted(r.Context(), actor, s.Org, user.ID, allowed); err != nil {
				c.fail(w, r, err)
				return
			}
			changed, err := c.mgr.User(r.Context(), s.Org, user.ID)
			if err != nil {
				c.fail(w, r, err)
				return
			}
			user = changed
		}
	}
	answer(w, http.StatusOK, c.user(user, s))
}

func (c *corpAPI) users(r *http.Request, org string) ([]*store.User, error) {
	q := store.UserQuery{Org: org, Limit: 1000}
	var all []*store.User
	for {
		page, err := c.mgr.Users(r.Context(), q)
		if err != nil {
			return nil, err
		}
		all = append(all, page...)
		if len(page) < q.Limit {
			return all, nil
		}
		q.After = page[len(page)-1].ID
	}
}

// An apiToken is a key as its user sees it. No answer has a top-level message on
// success: a client of the original takes that for an error.
type apiToken struct {
	ID      string     `json:"id"`
	Name    string     `json:"name"`
	Created time.Time  `json:"created"`
	Expires *time.Time `json:"expires"`
	Status  keys.State `json:"status"`
	Token   string     `json:"token,omitempty"` // once
}

func (c *corpAPI) listTokens(w http.ResponseWriter, r *http.Request, _ keys.Actor) {
	p := caller(r)
	tokens := []apiToken{}
	q := keys.TableQuery{Org: p.Org, User: p.User}
	for {
		rows, next, err := c.mgr.Table(r.Context(), q)
		if err != nil {
			c.fail(w, r, err)
			return
		}
		for _, row := range rows {
			t := apiToken{ID: row.Key.ID, Name: row.Key.Name, Created: row.Key.CreatedAt, Status: row.Status.State}
			if end := row.Status.ExpiresAt; !end.IsZero() {
				t.Expires = &end
			}
			tokens = append(tokens, t)
		}
		if next == (store.Cursor{}) {
			break
		}
		q.After = next
	}
	answer(w, http.StatusOK, map[string]any{"data": tokens})
}

func (c *corpAPI) createToken(w http.ResponseWriter, r *http.Request, actor keys.Actor) {
	body, ok := c.read(w, r)
	if !ok {
		return
	}
	var name string
	if err := member(body, "name", &name); err != nil {
		c.refuse(w, r, http.StatusBadRequest, "ValidationError", "invalid_field", err.Error())
		return
	}
	p := caller(r)
	t, k, err := c.mgr.Create(r.Context(), keys.CreateParams{Actor: actor, Org: p.Org, User: p.User, Name: name})
	if err != nil {
		c.fail(w, r, err)
		return
	}
	answer(w, http.StatusCreated, apiToken{ID: k.ID, Name: k.Name, Created: k.CreatedAt, Status: keys.Active, Token: t.Reveal()})
}

func (c *corpAPI) deleteToken(w http.ResponseWriter, r *http.Request, actor keys.Actor) {
	p := caller(r)
	if err := c.mgr.Revoke(r.Context(), actor, keys.Ref{Org: p.Org, User: p.User, ID: r.PathValue("prefix")}); err != nil {
		c.fail(w, r, err)
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusNoContent)
}

// caller is who sent a request; the Guard has seen to it that there is one.
func caller(r *http.Request) *policy.Principal {
	p, _ := middleware.PrincipalFrom(r.Context())
	return p
}

// actor is the caller as the Manager knows those who ask for something. Whether the
// caller is an owner, or suspended, is read anew from the store, not from the cache.
func (c *corpAPI) actor(r *http.Request) (a keys.Actor, suspended bool, err error) {
	p := caller(r)
	addr, _ := middleware.AddrFrom(r.Context())
	a = keys.Actor{ID: p.User, Credential: p.Credential, Addr: addr, UserAgent: r.UserAgent()}
	u, err := c.mgr.User(r.Context(), p.Org, p.User)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return a, false, nil
	case err != nil:
		return a, false, err
	case u.Owner:
		a.Role = keys.Owner
	}
	return a, !u.SuspendedAt.IsZero(), nil
}

// refused tells the trail that a request is refused, on what its path names.
func (c *corpAPI) refused(r *http.Request, action string, a keys.Actor, err error) {
	if action != "" {
		c.mgr.Refused(r.Context(), action, a, keys.Ref{Org: caller(r).Org, ID: r.PathValue("prefix")}, err)
	}
}

// owner reports whether a may do what only owners may. Somebody else is refused, and
// in the trail with what was tried on whom.
func (c *corpAPI) owner(w http.ResponseWriter, r *http.Request, action string, a keys.Actor, user string) bool {
	if a.Role == keys.Owner {
		return true
	}
	c.mgr.Refused(r.Context(), action, a, keys.Ref{Org: caller(r).Org, User: user}, keys.ErrForbidden)
	c.refuse(w, r, http.StatusForbidden, "Forbidden", "owner_required", "Only owners may change this.")
	return false
}

// settings are those of the caller's corp.
func (c *corpAPI) settings(w http.ResponseWriter, r *http.Request) (*policy.Settings, bool) {
	s, err := c.mgr.Settings(r.Context(), caller(r).Org)
	if err != nil {
		c.fail(w, r, err)
		return nil, false
	}
	return s, true
}

// ownCorp is settings for a path that names a corp, which must be the caller's.
func (c *corpAPI) ownCorp(w http.ResponseWriter, r *http.Request) (*policy.Settings, bool) {
	if r.PathValue("corp") != caller(r).Org {
		c.notFound(w, r)
		return nil, false
	}
	return c.settings(w, r)
}

// read reads the members of a JSON object. Unknown ones are ignored, because clients
// send back what they were given; the others are known by their names as they are
// written, and each is there once.
func (c *corpAPI) read(w http.ResponseWriter, r *http.Request) (map[string]json.RawMessage, bool) {
	media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || media != "application/json" {
		c.refuse(w, r, http.StatusUnsupportedMediaType, "InvalidRequest", "media_type", "Send application/json.")
		return nil, false
	}
	text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 64<<10))
	members := make(map[string]json.RawMessage)
	if err == nil {
		err = eachMember(text, func(name string, value json.RawMessage) error {
			members[name] = value
			return nil
		}, func(problem string) error { return errors.New(problem) })
	}
	if err != nil {
		c.refuse(w, r, http.StatusBadRequest, "InvalidRequest", "invalid_json", "The body is not one object of JSON whose members are there once each.")
		return nil, false
	}
	return members, true
}

// member decodes a member of a body into v, and leaves v alone if it is not there.
// A null is no value: it would lift a setting that nobody mentioned.
func member(body map[string]json.RawMessage, name string, v any) error {
	raw, ok := body[name]
	switch {
	case !ok:
		return nil
	case string(raw) == "null":
		return errors.New(name + " is null")
	}
	return decodeStrict(raw, reflect.ValueOf(v).Elem(), name)
}

func (c *corpAPI) noMethod(w http.ResponseWriter, r *http.Request, _ keys.Actor) {
	w.Header().Set("Allow", "GET, HEAD, POST, DELETE")
	c.refuse(w, r, http.StatusMethodNotAllowed, "InvalidRequest", "method_not_allowed", "This cannot be done here.")
}

func (c *corpAPI) notFound(w http.ResponseWriter, r *http.Request) {
	c.refuse(w, r, http.StatusNotFound, "NotFound", "not_found", "There is no such thing here.")
}

// fail answers with what an error of the Manager means.
func (c *corpAPI) fail(w http.ResponseWriter, r *http.Request, err error) {
	if limit, ok := errors.AsType[*keys.LimitError](err); ok {
		c.refuse(w, r, http.StatusConflict, "TokenLimitReached", "token_limit",
			fmt.Sprintf("You have %d API tokens, which is the limit.", limit.Limit))
		return
	}
	if field, ok := errors.AsType[*keys.FieldError](err); ok {
		c.refuse(w, r, http.StatusBadRequest, "ValidationError", "invalid_field", field.Field+" "+field.Problem)
		return
	}
	for _, known := range []struct {
		err    error
		status int
		code   string
		reason policy.Reason
		text   string
	}{
		{store.ErrNotFound, http.StatusNotFound, "NotFound", "not_found", "There is no such thing here."},
		{store.ErrConflict, http.StatusConflict, "Conflict", "conflict", "Somebody else changed this meanwhile."},
		{keys.ErrNotPermitted, http.StatusForbidden, "Forbidden", policy.UserNotPermitted, "You have no permission to use API tokens."},
		{keys.ErrTier, http.StatusForbidden, "Forbidden", policy.TierNotAllowed, "Your tier has no API tokens."},
		{keys.ErrSuspended, http.StatusForbidden, "Forbidden", "suspended", "You are suspended."},
		{keys.ErrForbidden, http.StatusForbidden, "Forbidden", "owner_required", "Only owners may change this."},
	} {
		if errors.Is(err, known.err) {
			c.refuse(w, r, known.status, known.code, known.reason, known.text)
			return
		}
	}
	w.Header().Set("Retry-After", "1")
	c.refuse(w, r, http.StatusServiceUnavailable, "Unavailable", policy.StoreUnavailable, "The service cannot answer now. Try again.")
}

func (c *corpAPI) refuse(w http.ResponseWriter, r *http.Request, status int, code string, reason policy.Reason, message string) {
	c.guard.Refuse(w, r, &middleware.Refusal{Status: status, Code: code, Reason: reason, Message: message})
}

func answer(w http.ResponseWriter, status int, body any) {
	h := w.Header()
	h.Set("Content-Type", "application/json; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the client is gone: nothing is left to do
}
