package oidcauth

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/keystile/keystile/policy"
	"github.com/keystile/keystile/store"
)

// ownPrefix begins the organization of a person who belongs to no other.
const ownPrefix = "user:"

var errSuspended = refused("user is suspended")

// An Identity is what the claims of a token say about a person, beside the sub.
type Identity struct {
	// Org is the organization: Principal.Org, and that of the record in Users. The
	// sub of a person is unique only with one issuer, so organizations are best not
	// shared between issuers. Empty: none, and no record is kept.
	Org string

	Team string // Principal.Team

	// Tier and Email: empty if the token does not say, so that the record in Users
	// keeps what it has. A person without the claim of a tier is not thereby of the
	// lowest: where that is meant, Options.Map has to say so.
	Tier, Email string

	// Owner says whether the person may manage the organization; nil if the token
	// does not say.
	Owner *bool
}

// Users keeps the records of users; the Manager of package keys is one.
//
// When a token is verified, which is at most once a minute while it is in use, the
// record of its person is brought up to date by what the [Identity] says, and made if
// there is none (D42): Email, Tier and Owner where the token says them, never
// SuspendedAt and the grant. Where it does not say them, Tier and Owner of the
// Principal are those of the record. A person whose record is suspended is refused,
// by 401 (D17): within a minute, since verified tokens are remembered. A failure of
// Users is answered by 503.
type Users interface {
	// SignIn returns the record of a user after edit has changed it; of one that is
	// not known, a new record. It writes nothing if there is nothing to change. Where
	// somebody else changes the record meanwhile, edit is called again with what it
	// is then, so that no suspension is lost. An error of edit is returned, wrapped,
	// and nothing is written.
	SignIn(ctx context.Context, org, user string, edit func(u *store.User) error) (*store.User, error)
}

// identify completes p by what the claims and the record of the person say.
func (a *Authenticator) identify(ctx context.Context, claims map[string]any, p *policy.Principal) error {
	id, err := a.named(claims, p.User)
	if err != nil {
		return err
	}
	if a.opts.Map != nil {
		if id, err = a.opts.Map(ctx, claims, id); err != nil {
			return fmt.Errorf("oidcauth: Map: %w", err)
		}
	}
	p.Org, p.Team, p.Tier = id.Org, id.Team, id.Tier
	if id.Owner != nil {
		p.Owner = *id.Owner
	}
	if a.opts.Users == nil || id.Org == "" {
		return nil
	}
	u, err := a.record(ctx, id, p.User)
	if err != nil {
		return err
	}
	p.Tier, p.Owner, p.Permitted = u.Tier, u.Owner, u.Permitted
	return nil
}

// named returns the Identity that the claims named in the Options make.
func (a *Authenticator) named(claims map[string]any, sub string) (Identity, error) {
	var id Identity
	var org string
	for _, c := range []struct {
		to   *string
		name string
	}{
		{&id.Team, a.opts.TeamClaim},
		{&id.Tier, a.opts.TierClaim},
		{&id.Email, a.opts.EmailClaim},
		{&org, a.opts.OrgClaim},
	} {
		var ok bool
		if *c.to, ok = text(claims[c.name]); !ok {
			return id, errClaim
		}
	}
	if strings.HasPrefix(org, ownPrefix) {
		return id, errOwnPrefix
	}
	if id.Org = cmp.Or(org, ownPrefix+sub); len(id.Org) > store.MaxID {
		return id, errSubject // too long for an organization of one's own
	}
	if a.opts.EmailClaim == defaultEmailClaim && claims["email_verified"] != true {
		id.Email = ""
	}
	if a.opts.OwnerClaim != "" {
		groups, _ := claims[a.opts.OwnerClaim].([]any)
		id.Owner = new(claims[a.opts.OwnerClaim] == a.opts.OwnerValue || slices.Contains(groups, any(a.opts.OwnerValue)))
	}
	return id, nil
}

// record brings the record of a person up to date and returns it.
func (a *Authenticator) record(ctx context.Context, id Identity, sub string) (*store.User, error) {
	u, err := a.opts.Users.SignIn(ctx, id.Org, sub, func(u *store.User) error {
		if !u.SuspendedAt.IsZero() {
			return errSuspended
		}
		u.Email = cmp.Or(id.Email, u.Email)
		u.Tier = cmp.Or(id.Tier, u.Tier)
		if id.Owner != nil {
			u.Owner = *id.Owner
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("oidcauth: Users: %w", err)
	}
	return u, nil
}
