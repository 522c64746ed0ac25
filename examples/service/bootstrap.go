package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/keystile/keystile/policy"
	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/store/keys"
)

// A bootstrap is what the operator puts into the service before it serves: the
// file of the flag -bootstrap. It is the operator's, so neither tiers nor the
// restriction nor the limit of plain users bind it; the cap does.
type bootstrap struct {
	Orgs []bootstrapOrg `json:"orgs"`
}

type bootstrapOrg struct {
	Name     string             `json:"name"`
	Settings *bootstrapSettings `json:"settings"`
	Users    []bootstrapUser    `json:"users"`
}

// bootstrapSettings have the members of /v1/org/token-settings.
type bootstrapSettings struct {
	RestrictedAccessTokens bool     `json:"restrictedAccessTokens"`
	APITokenMaxAge         int64    `json:"apiTokenMaxAge"`
	APIAllowedIPs          []string `json:"apiAllowedIPs"`
}

type bootstrapUser struct {
	ID        string         `json:"id"`
	Email     string         `json:"email"`
	Role      string         `json:"role"`
	Tier      string         `json:"tier"`
	Permitted bool           `json:"permitted"`
	Keys      []bootstrapKey `json:"keys"`
}

type bootstrapKey struct {
	Ref        string    `json:"ref"`
	Name       string    `json:"name"`
	CreatedAt  time.Time `json:"createdAt"`
	ExpiresAt  time.Time `json:"expiresAt"`
	DailyLimit *int64    `json:"dailyLimit"` // nil: the default of the service
	Scopes     []string  `json:"scopes"`
	Revoked    bool      `json:"revoked"`
	Disabled   bool      `json:"disabled"`
}

// works reports whether a key that is made now can be used, but for the settings of
// its organization.
func (k *bootstrapKey) works(now time.Time) bool {
	return !k.Revoked && !k.Disabled && (k.ExpiresAt.IsZero() || k.ExpiresAt.After(now))
}

// readBootstrap reads and checks a file. The error names what is wrong with it.
func readBootstrap(file string) (*bootstrap, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var b bootstrap
	if err := decodeStrict(text, reflect.ValueOf(&b).Elem(), ""); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if err := b.check(); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return &b, nil
}

// check reports everything that is wrong, beyond what the Manager will see.
func (b *bootstrap) check() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	orgs, users, refs := make(map[string]bool), make(map[string]bool), make(map[string]bool)
	for i, o := range b.Orgs {
		switch {
		case o.Name == "":
			bad("orgs[%d].name is empty", i)
		case orgs[o.Name]:
			bad("orgs[%d].name: %q is there already", i, o.Name)
		}
		orgs[o.Name] = true
		if o.Settings != nil {
			if _, err := o.Settings.settings(o.Name); err != nil {
				bad("orgs[%d].settings: %w", i, err)
			}
		}
		for j, u := range o.Users {
			at := fmt.Sprintf("orgs[%d].users[%d]", i, j)
			switch {
			case u.ID == "":
				bad("%s.id is empty", at)
			case users[u.ID]:
				// The sub of a JWT is the ID: it must say which organization.
				bad("%s.id: %q is there already", at, u.ID)
			}
			users[u.ID] = true
			switch u.Role {
			case roleOwner, roleAdmin, roleUser, roleObserver:
			default:
				bad("%s.role is not owner, admin, user or observer", at)
			}
			names, unrevoked := make(map[string]bool), 0
			for l, k := range u.Keys {
				at := fmt.Sprintf("%s.keys[%d]", at, l)
				if k.Ref == "" || refs[k.Ref] {
					bad("%s.ref is empty or there already", at)
				}
				refs[k.Ref] = true
				if !k.Revoked {
					unrevoked++
				}
				if names[strings.TrimSpace(k.Name)] {
					// A key is known again by its name at the next start.
					bad("%s.name is that of another key of this user", at)
				}
				names[strings.TrimSpace(k.Name)] = true
				if k.DailyLimit != nil && (*k.DailyLimit == 0 || *k.DailyLimit < -1) {
					bad("%s.dailyLimit must be at least 1, or -1 for no limit", at) // D6
				}
			}
			if unrevoked > maxKeys {
				bad("%s.keys: %q has %d that are not revoked, and can have %d", at, u.ID, unrevoked, maxKeys) // S12
			}
		}
	}
	return errors.Join(errs...)
}

func (s *bootstrapSettings) settings(org string) (*policy.Settings, error) {
	return parseSettings(org, s.RestrictedAccessTokens, s.APITokenMaxAge, s.APIAllowedIPs)
}

// parseSettings makes settings of the three values that both APIs know them by.
func parseSettings(org string, restricted bool, maxAge int64, allowed []string) (*policy.Settings, error) {
	age, err := policy.MaxAgeFromSeconds(maxAge)
	if err != nil {
		return nil, fmt.Errorf("apiTokenMaxAge: %w", err)
	}
	for i, entry := range allowed {
		if strings.ContainsAny(entry, "\r\n") {
			return nil, fmt.Errorf("apiAllowedIPs[%d] has more than one line", i)
		}
	}
	list, err := policy.ParseIPList(strings.Join(allowed, "\n"))
	if err != nil {
		return nil, fmt.Errorf("apiAllowedIPs: %w", err)
	}
	return &policy.Settings{Org: org, RestrictUsers: restricted, MaxAge: age, AllowedIPs: list}, nil
}

// operator is who does what the file says.
var operator = keys.Actor{ID: "bootstrap", Role: keys.Operator}

// apply puts what b says into the service and writes a line of JSON for each
// key to out: with its token if the key was made now, without if it was there.
// What people changed since the first start is left as it is. It returns the tokens
// of the keys that were made now, by ref.
func (b *bootstrap) apply(ctx context.Context, mgr *keys.Manager, out io.Writer) (map[string]string, error) {
	lines := json.NewEncoder(out)
	tokens := make(map[string]string)
	for _, o := range b.Orgs {
		if err := o.applySettings(ctx, mgr); err != nil {
			return nil, fmt.Errorf("organization %s: %w", o.Name, err)
		}
		for _, u := range o.Users {
			if err := u.apply(ctx, mgr, o.Name); err != nil {
				return nil, fmt.Errorf("user %s: %w", u.ID, err)
			}
			// Those that are revoked come first, since they take no place of the cap.
			slices.SortStableFunc(u.Keys, func(a, b bootstrapKey) int {
				return cmp.Compare(b2i(b.Revoked), b2i(a.Revoked))
			})
			for _, k := range u.Keys {
				if err := ctx.Err(); err != nil {
					return nil, err
				}
				// Ctrl-C comes between two keys: what is made is finished and printed.
				line, err := k.apply(context.WithoutCancel(ctx), mgr, o.Name, u.ID)
				if err != nil {
					return nil, fmt.Errorf("key %s: %w", k.Ref, err)
				}
				if line.Token != "" {
					tokens[k.Ref] = line.Token
				}
				if err := lines.Encode(line); err != nil {
					return nil, err
				}
			}
		}
	}
	return tokens, nil
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// apply makes a user, or makes sure of the role of one that is there: the rest may
// have changed since, by a sign-in for example.
func (u *bootstrapUser) apply(ctx context.Context, mgr *keys.Manager, org string) error {
	known, err := mgr.User(ctx, org, u.ID)
	switch {
	case errors.Is(err, store.ErrNotFound):
		known = &store.User{Org: org, ID: u.ID, Email: u.Email, Tier: u.Tier, Permitted: u.Permitted}
	case err != nil:
		return err
	default:
		changed := *known
		known = &changed
	}
	known.Owner = u.Role == roleOwner
	return mgr.PutUser(ctx, known)
}

// applySettings writes the settings of an organization that has none yet.
func (o *bootstrapOrg) applySettings(ctx context.Context, mgr *keys.Manager) error {
	current, err := mgr.Settings(ctx, o.Name)
	if err != nil || o.Settings == nil || current.Version != 0 {
		return err
	}
	s, err := o.Settings.settings(o.Name)
	if err != nil {
		return err
	}
	_, err = mgr.UpdateSettings(ctx, operator, s)
	return err
}

// A keyLine is what is printed of a key.
type keyLine struct {
	Ref    string `json:"ref"`
	Prefix string `json:"prefix"`
	Token  string `json:"token,omitempty"`
}

func (k *bootstrapKey) apply(ctx context.Context, mgr *keys.Manager, org, user string) (keyLine, error) {
	known, err := findKey(ctx, mgr, org, user, strings.TrimSpace(k.Name))
	if err != nil {
		return keyLine{}, err
	}
	if known != nil {
		// A start that was killed may have made it and no more.
		if k.Disabled && known.Version == 1 { // else somebody may have enabled it since
			_, err = mgr.Disable(ctx, operator, keys.Ref{Org: org, User: user, ID: known.ID})
			if err != nil {
				return keyLine{}, err
			}
		}
		if k.Revoked {
			err = mgr.Revoke(ctx, operator, keys.Ref{Org: org, User: user, ID: known.ID})
			if errors.Is(err, store.ErrNotFound) {
				err = nil
			}
		}
		return keyLine{Ref: k.Ref, Prefix: known.ID}, err
	}
	created := k.CreatedAt
	if created.IsZero() && !k.ExpiresAt.IsZero() && !k.ExpiresAt.After(time.Now()) {
		created = k.ExpiresAt.Add(-time.Second) // it has ended, so it began before that
	}
	var dailyLimit int64
	if k.DailyLimit != nil {
		dailyLimit = *k.DailyLimit
	}
	t, made, err := mgr.Create(ctx, keys.CreateParams{
		Actor: operator, Org: org, User: user, Name: k.Name, Scopes: k.Scopes,
		DailyLimit: dailyLimit, CreatedAt: created, NotAfter: k.ExpiresAt,
	})
	if err != nil {
		return keyLine{}, err
	}
	ref := keys.Ref{Org: org, User: user, ID: made.ID}
	if k.Disabled {
		if _, err := mgr.Disable(ctx, operator, ref); err != nil {
			return keyLine{}, err
		}
	}
	if k.Revoked {
		if err := mgr.Revoke(ctx, operator, ref); err != nil {
			return keyLine{}, err
		}
	}
	return keyLine{Ref: k.Ref, Prefix: made.ID, Token: t.Reveal()}, nil
}

// findKey returns the key of a user with exactly that name, revoked ones
// included, or nil.
func findKey(ctx context.Context, mgr *keys.Manager, org, user, name string) (*store.Key, error) {
	q := store.Query{Org: org, User: user, Name: name, Revoked: true, Limit: 1000}
	for {
		page, err := mgr.List(ctx, q)
		if err != nil {
			return nil, err
		}
		for _, k := range page {
			if k.Name == name {
				return k, nil
			}
		}
		if len(page) < q.Limit {
			return nil, nil
		}
		last := page[len(page)-1]
		q.After = store.Cursor{CreatedAt: last.CreatedAt, ID: last.ID}
	}
}
