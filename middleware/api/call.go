package api

import (
	"errors"
	"net/http"

	"github.com/keystile/keystile/middleware"
	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/store/keys"
)

// A call is a request of a person whom the Guard let through.
type call struct {
	*api
	w     http.ResponseWriter
	r     *http.Request
	user  *store.User // as the store has it now: who is calling, whatever the credential says beside
	actor keys.Actor

	action string            // of the trail, if the call is refused here
	params map[string]string // of the query, as far as the operation has them
}

// An operation serves a call. It returns the answer of a success, or an error that
// [call.refuse] knows how to answer.
type operation func(c *call) (*answer, error)

// person returns the handler of an operation that people have on what is theirs. It
// takes a human credential, asked for as such (S60, D25), and a query with none but
// the params. A caller who is refused here is in the trail under action, unless that
// is empty.
func (a *api) person(action string, op operation, params ...string) http.Handler {
	return a.serve(action, op.with(params))
}

// owner returns the handler of an operation on the organization of its caller, for
// owners only (S22, S30, S47).
func (a *api) owner(action string, op operation, params ...string) http.Handler {
	op = op.with(params)
	return a.serve(action, func(c *call) (*answer, error) {
		if c.actor.Role != keys.Owner {
			c.refused(keys.ErrForbidden)
			return nil, forbidden("owner_required", "Only owners of the organization may do this.")
		}
		return op(c)
	})
}

// with returns op behind the reading of its parameters.
func (op operation) with(params []string) operation {
	return func(c *call) (*answer, error) {
		var err error
		if c.params, err = c.query(params...); err != nil {
			return nil, err
		}
		return op(c)
	}
}

// serve returns the handler that finds out who is calling, and answers.
func (a *api) serve(action string, op operation) http.Handler {
	return a.people.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := &call{api: a, w: w, r: r, action: action}
		var ok *answer
		err := c.identify()
		if err == nil {
			ok, err = op(c)
		}
		if err != nil {
			c.refuse(err)
			return
		}
		ok.write(w)
	}))
}

// refused tells the trail that the call is refused here, for the reason that err
// stands for. What it was about is as the path names it.
func (c *call) refused(err error) {
	if c.action == "" {
		return
	}
	p, _ := middleware.PrincipalFrom(c.r.Context())
	ref := keys.Ref{Org: p.Org, User: c.r.PathValue("user"), ID: c.r.PathValue("prefix")}
	c.mgr.Refused(c.r.Context(), c.action, c.actor, ref, err)
}

// identify finds out who is calling. Organization and user come from the
// credential, and from nothing else in the request; everything else about the user
// comes from the store, read anew, so that somebody who was suspended or is no
// owner any more manages nothing from then on, whatever a token or a cache says.
func (c *call) identify() error {
	p, _ := middleware.PrincipalFrom(c.r.Context())
	addr, _ := middleware.AddrFrom(c.r.Context())
	c.actor = keys.Actor{ID: p.User, Credential: p.Credential, Addr: addr, UserAgent: c.r.UserAgent()}
	// An empty name would select everybody in what follows; the Manager finds no
	// user by it.
	u, err := c.mgr.User(c.r.Context(), p.Org, p.User)
	switch {
	case errors.Is(err, store.ErrNotFound):
		c.refused(keys.ErrUnknownUser)
		return forbidden("user_unknown", "This service does not know the user.")
	case err != nil:
		return err
	}
	c.user = u
	if u.Owner {
		c.actor.Role = keys.Owner
	}
	if !u.SuspendedAt.IsZero() {
		c.refused(keys.ErrSuspended)
		return errSuspended
	}
	// A session is sent by browsers unasked, from other sites' pages too, and so is
	// whatever stands for a JWT that a proxy adds. Programs that are no browsers send
	// neither Origin nor Sec-Fetch-Site, and pass.
	if c.crossOrigin.Check(c.r) != nil {
		c.refused(keys.ErrCrossOrigin)
		return forbidden("cross_origin", "This request comes from another site.")
	}
	return nil
}

// ownKey names a key of the caller.
func (c *call) ownKey() keys.Ref {
	return keys.Ref{Org: c.user.Org, User: c.user.ID, ID: c.r.PathValue("prefix")}
}

// orgKey names a key of anybody in the organization of the caller, who is an owner.
func (c *call) orgKey() keys.Ref {
	return keys.Ref{Org: c.user.Org, ID: c.r.PathValue("prefix")}
}
