package api

import (
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"github.com/keystile/keystile/middleware"
	"github.com/keystile/keystile/policy"
	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/store/keys"
)

// A keyView is a key in an answer. It has no member for what is stored of the token.
type keyView struct {
	Prefix     string   `json:"prefix"`
	Name       string   `json:"name"`
	Scopes     []string `json:"scopes"`
	DailyLimit *int64   `json:"dailyLimit"` // null: the default of the service

	Status       keys.State      `json:"status"`
	Reasons      []policy.Reason `json:"reasons"`
	CreatedAt    timestamp       `json:"createdAt"`
	ExpiresAt    timestamp       `json:"expiresAt"`
	OwnExpiresAt timestamp       `json:"ownExpiresAt"`
	LastUsedAt   timestamp       `json:"lastUsedAt"`
	RevokedAt    timestamp       `json:"revokedAt"`
}

func viewKey(k *store.Key, status keys.Status, lastUsed time.Time) keyView {
	v := keyView{
		Prefix:       k.ID,
		Name:         k.Name,
		Scopes:       list(k.Scopes),
		Status:       status.State,
		Reasons:      list(status.Reasons),
		CreatedAt:    timestamp{k.CreatedAt},
		ExpiresAt:    timestamp{status.ExpiresAt},
		OwnExpiresAt: timestamp{k.NotAfter},
		LastUsedAt:   timestamp{lastUsed},
		RevokedAt:    timestamp{k.RevokedAt},
	}
	if k.DailyLimit != 0 {
		v.DailyLimit = &k.DailyLimit
	}
	return v
}

// list returns items as JSON shall have them: an array, if an empty one.
func list[T any](items []T) []T {
	if items == nil {
		return []T{}
	}
	return items
}

// A madeKey is the answer to a creation. It is the only one with a token.
type madeKey struct {
	Key string `json:"key"` // the whole token, this once (S16, S57)
	keyView
}

// made answers the creation of k, which s was read for before: from then on nothing
// may fail, since nobody would ever see the token.
func (c *call) made(secret string, k *store.Key, s *policy.Settings) (*answer, error) {
	status := keys.StatusOf(store.NewRecord(k, c.user), s, k.CreatedAt)
	return &answer{status: http.StatusCreated, data: madeKey{secret, viewKey(k, status, time.Time{})}}, nil
}

// createKey serves POST /v1/api-keys (S56). The answer has the token, this once
// (S57, D29).
func createKey(c *call) (*answer, error) {
	var name *string
	var scopes *[]string
	var dailyLimit *int64
	var expiresAt *time.Time
	if err := c.body(members{
		"name":       text(&name),
		"scopes":     texts(&scopes),
		"dailyLimit": readDailyLimit(&dailyLimit),
		"expiresAt":  readExpiresAt(&expiresAt),
	}); err != nil {
		return nil, err
	}
	if name == nil {
		return nil, invalidField("name", "is required")
	}
	p := keys.CreateParams{Actor: c.actor, Org: c.user.Org, User: c.user.ID, Name: *name}
	if scopes != nil {
		p.Scopes = *scopes
	}
	if dailyLimit != nil {
		p.DailyLimit = *dailyLimit
	}
	if expiresAt != nil {
		p.NotAfter = *expiresAt
	}
	s, err := c.mgr.Settings(c.r.Context(), c.user.Org)
	if err != nil {
		return nil, err
	}
	t, k, err := c.mgr.Create(c.r.Context(), p)
	if err != nil {
		return nil, err
	}
	return c.made(t.Reveal(), k, s)
}

// readDailyLimit reads the limit of a key (D6): null is the default of the service,
// which 0 stands for in Go and must not here.
func readDailyLimit(to **int64) reader {
	return orNull(func() { *to = new(int64(0)) }, integer(to, func(n int64) string {
		if n == 0 || n < -1 {
			return "must be a positive number, or -1 for unlimited"
		}
		return ""
	}))
}

// readExpiresAt reads the own end of a key: null is none. The zero Time is refused
// here, because the Manager takes it for none.
func readExpiresAt(to **time.Time) reader {
	return orNull(func() { *to = new(time.Time{}) }, func(raw json.RawMessage) []middleware.FieldProblem {
		var t *time.Time
		if problems := instant(&t)(raw); problems != nil {
			return problems
		}
		if t.IsZero() {
			return problem("must lie in the future")
		}
		*to = t
		return nil
	})
}

// listKeys serves GET /v1/api-keys: the caller's own keys (S51, S58), also of a
// user without permission (D35).
func listKeys(c *call) (*answer, error) {
	rows, next, err := c.table(keys.TableQuery{Org: c.user.Org, User: c.user.ID})
	if err != nil {
		return nil, err
	}
	page := struct {
		Keys       []keyView `json:"keys"`
		NextCursor *string   `json:"nextCursor"`
	}{[]keyView{}, next}
	for _, r := range rows {
		page.Keys = append(page.Keys, viewKey(r.Key, r.Status, r.Uses.LastUsed))
	}
	return ok(page)
}

// getKey serves GET /v1/api-keys/{prefix}.
func getKey(c *call) (*answer, error) {
	row, err := c.mgr.Row(c.r.Context(), c.ownKey())
	if err != nil {
		return nil, err
	}
	return ok(viewKey(row.Key, row.Status, row.Uses.LastUsed))
}

// updateKey serves PATCH /v1/api-keys/{prefix}.
func updateKey(c *call) (*answer, error) {
	p := keys.UpdateParams{Actor: c.actor, Ref: c.ownKey()}
	if err := c.body(members{
		"name":       text(&p.Name),
		"scopes":     texts(&p.Scopes),
		"dailyLimit": readDailyLimit(&p.DailyLimit),
		"expiresAt":  readExpiresAt(&p.NotAfter),
	}); err != nil {
		return nil, err
	}
	if p.Name == nil && p.Scopes == nil && p.DailyLimit == nil && p.NotAfter == nil {
		return nil, errNothing
	}
	if _, err := c.mgr.Update(c.r.Context(), p); err != nil {
		return nil, err
	}
	return getKey(c)
}

// errNothing is the answer to a PATCH without members.
var errNothing = invalidField("", "the object has nothing to change")

// revokeKey serves DELETE /v1/api-keys/{prefix} (S59).
func revokeKey(c *call) (*answer, error) {
	if err := c.mgr.Revoke(c.r.Context(), c.actor, c.ownKey()); err != nil {
		return nil, err
	}
	return done(revoked)
}

const revoked = "The API key is revoked."

// rotateKey serves POST /v1/api-keys/{prefix}/rotate (D39).
func rotateKey(c *call) (*answer, error) {
	var seconds *int64
	most := int64(keys.MaxGrace / time.Second)
	if err := c.optionalBody(members{
		"grace": integer(&seconds, func(n int64) string {
			if n < 0 || n > most { // before it is multiplied
				return "must be a number of seconds from 0 to " + strconv.FormatInt(most, 10)
			}
			return ""
		}),
	}); err != nil {
		return nil, err
	}
	p := keys.RotateParams{Actor: c.actor, Ref: c.ownKey()}
	if seconds != nil {
		p.Grace = time.Duration(*seconds) * time.Second
	}
	s, err := c.mgr.Settings(c.r.Context(), c.user.Org)
	if err != nil {
		return nil, err
	}
	t, k, err := c.mgr.Rotate(c.r.Context(), p)
	if err != nil {
		return nil, err
	}
	return c.made(t.Reveal(), k, s)
}
