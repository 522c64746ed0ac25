package api

import (
	"errors"

	"github.com/keystile/keystile/store"
)

// A userView is a user in an answer.
type userView struct {
	ID              string    `json:"id"`
	Email           string    `json:"email"`
	Tier            *string   `json:"tier"` // null: none
	Owner           bool      `json:"owner"`
	TokenPermission bool      `json:"tokenPermission"` // the grant (S31), effective while restricted
	SuspendedAt     timestamp `json:"suspendedAt"`
}

func viewUser(u *store.User) userView {
	v := userView{
		ID: u.ID, Email: email(u), Owner: u.Owner, TokenPermission: u.Permitted, SuspendedAt: timestamp{u.SuspendedAt},
	}
	if u.Tier != "" {
		v.Tier = &u.Tier
	}
	return v
}

// listUsers serves GET /v1/org/users.
func listUsers(c *call) (*answer, error) {
	limit, err := readNumber(c.params, "limit", maxPage)
	if err != nil {
		return nil, err
	}
	after, err := readCursor(c.params)
	if err != nil {
		return nil, err
	}
	// One more than asked for tells whether there is a next page.
	us, err := c.mgr.Users(c.r.Context(), store.UserQuery{Org: c.user.Org, After: after, Limit: limit + 1})
	if err != nil {
		return nil, err
	}
	page := struct {
		Users      []userView `json:"users"`
		NextCursor *string    `json:"nextCursor"`
	}{Users: []userView{}}
	if len(us) > limit {
		us = us[:limit]
		page.NextCursor = writeCursor(us[limit-1].ID)
	}
	for _, u := range us {
		page.Users = append(page.Users, viewUser(u))
	}
	return ok(page)
}

// grantPermission serves PUT /v1/org/users/{user}/token-permission (S28, S30-S32).
func grantPermission(c *call) (*answer, error) {
	if err := c.optionalBody(nil); err != nil {
		return nil, err
	}
	return c.setPermission(true)
}

// withdrawPermission serves DELETE on the same (S33).
func withdrawPermission(c *call) (*answer, error) { return c.setPermission(false) }

func (c *call) setPermission(permitted bool) (*answer, error) {
	id := c.r.PathValue("user")
	err := c.mgr.SetPermitted(c.r.Context(), c.actor, c.user.Org, id, permitted)
	if errors.Is(err, store.ErrNotFound) {
		return nil, errNoUser
	}
	if err != nil {
		return nil, err
	}
	u, err := c.mgr.User(c.r.Context(), c.user.Org, id)
	if err != nil {
		return nil, err
	}
	return ok(viewUser(u))
}

var errNoUser = notFound("There is no such user.")
