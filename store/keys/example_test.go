package keys_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/netip"
	"time"

	"github.com/keystile/keystile/policy"
	"github.com/keystile/keystile/ratelimit"
	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/store/audit"
	"github.com/keystile/keystile/store/keys"
	"github.com/keystile/keystile/store/memstore"
)

// newManager returns a Manager that knows one user, with its clock standing still.
func newManager(opts *keys.Options) *keys.Manager {
	var o keys.Options
	if opts != nil {
		o = *opts
	}
	if o.Now == nil {
		o.Now = func() time.Time { return time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC) }
	}
	mgr, err := keys.New(memstore.New(), &o)
	if err != nil {
		log.Fatal(err)
	}
	err = mgr.PutUser(context.Background(), &store.User{
		Org: "acme", ID: "u1", Email: "ada@acme.example", Tier: "Pro",
	})
	if err != nil {
		log.Fatal(err)
	}
	return mgr
}

// newKey makes a key of that user.
func newKey(mgr *keys.Manager) *store.Key {
	_, key, err := mgr.Create(context.Background(), keys.CreateParams{Org: "acme", User: "u1", Name: "SIEM export"})
	if err != nil {
		log.Fatal(err)
	}
	return key
}

func ExampleNew() {
	mgr, err := keys.New(memstore.New(), &keys.Options{
		MaxPerUser: 10,
		Tiers:      []string{"Pro", "Team", "Enterprise"},
	})
	fmt.Println(mgr != nil, err)

	_, err = keys.New(memstore.New(), &keys.Options{MaxPerUser: -5, Tiers: []string{""}})
	fmt.Println(err)
	// Output:
	// true <nil>
	// keys: MaxPerUser: must be -1 (no cap) or more
	// keys: Tiers[0]: must not be empty
}

func ExampleManager_Verifier() {
	ctx := context.Background()
	mgr := newManager(nil)
	tok, _, err := mgr.Create(ctx, keys.CreateParams{Org: "acme", User: "u1", Name: "SIEM export"})
	if err != nil {
		log.Fatal(err)
	}

	// What the middleware does with the token of a request.
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	found, err := mgr.Verifier().Verify(ctx, tok.Reveal(), now)
	fmt.Println(found.Record.Principal.User, err)
	// Output: u1 <nil>
}

func ExampleManager_Create() {
	ctx := context.Background()
	mgr := newManager(nil)
	tok, key, err := mgr.Create(ctx, keys.CreateParams{
		Actor:      keys.Actor{ID: "u1"},
		Org:        "acme",
		User:       "u1",
		Name:       "SIEM export",
		Scopes:     []string{"reports:read"},
		DailyLimit: 100,
	})
	if err != nil {
		log.Fatal(err)
	}
	secret := tok.Reveal() // show it once; it is kept nowhere
	fmt.Println(len(secret), secret[:len(key.ID)] == key.ID)
	fmt.Println(key.Name, key.Scopes, key.DailyLimit)
	// Output:
	// 41 true
	// SIEM export [reports:read] 100
}

// All bad parameters are reported together.
func ExampleFieldError() {
	mgr := newManager(nil)
	_, _, err := mgr.Create(context.Background(), keys.CreateParams{
		Org: "acme", User: "u1", Name: " ", Scopes: []string{"read write"}, DailyLimit: 1000,
	})
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, err := range joined.Unwrap() {
			if field, ok := errors.AsType[*keys.FieldError](err); ok {
				fmt.Printf("%s %s\n", field.Field, field.Problem)
			}
		}
	}
	// Output:
	// Name must not be empty
	// Scopes scope 1 must be printable ASCII without blanks, " and \
	// DailyLimit must be at most 250 unless an owner sets it
}

func ExampleLimitError() {
	mgr := newManager(&keys.Options{MaxPerUser: 1})
	newKey(mgr)
	_, _, err := mgr.Create(context.Background(), keys.CreateParams{Org: "acme", User: "u1", Name: "one more"})
	if limit, ok := errors.AsType[*keys.LimitError](err); ok {
		fmt.Println(limit.Limit, err)
	}
	// Output: 1 keys: limit of 1 per user reached
}

func ExampleManager_Get() {
	ctx := context.Background()
	mgr := newManager(nil)
	key := newKey(mgr)
	found, err := mgr.Get(ctx, keys.Ref{Org: "acme", User: "u1", ID: key.ID})
	fmt.Println(found.Name, err)

	_, err = mgr.Get(ctx, keys.Ref{Org: "acme", User: "u2", ID: key.ID}) // not that user's
	fmt.Println(errors.Is(err, store.ErrNotFound))
	// Output:
	// SIEM export <nil>
	// true
}

// A Ref without a User names any key of the organization. Taking the User from a
// session that may have none turns a plain user into an owner.
func ExampleRef_incorrect() {
	ctx := context.Background()
	mgr := newManager(nil)
	key := newKey(mgr) // of u1

	signedIn := "" // nobody
	err := mgr.Revoke(ctx, keys.Actor{ID: signedIn}, keys.Ref{Org: "acme", User: signedIn, ID: key.ID})
	fmt.Println("revoked by nobody:", err == nil)
	// Output: revoked by nobody: true
}

func ExampleManager_List() {
	ctx := context.Background()
	mgr := newManager(nil)
	newKey(mgr)
	newKey(mgr)
	q := store.Query{Org: "acme", User: "u1", Limit: 1}
	for {
		page, err := mgr.List(ctx, q)
		if err != nil {
			log.Fatal(err)
		}
		for _, key := range page {
			fmt.Println(key.Name)
			q.After = store.Cursor{CreatedAt: key.CreatedAt, ID: key.ID}
		}
		if len(page) < q.Limit {
			break
		}
	}
	// Output:
	// SIEM export
	// SIEM export
}

func ExampleManager_Update() {
	ctx := context.Background()
	mgr := newManager(nil)
	key := newKey(mgr)
	key, err := mgr.Update(ctx, keys.UpdateParams{
		Actor:   keys.Actor{ID: "u1"},
		Ref:     keys.Ref{Org: "acme", User: "u1", ID: key.ID},
		Version: key.Version, // only if nobody else has changed it
		Name:    new("nightly export"),
	})
	fmt.Println(key.Name, key.Version, err)
	// Output: nightly export 2 <nil>
}

func ExampleManager_Disable() {
	ctx := context.Background()
	mgr := newManager(nil)
	key := newKey(mgr)
	ref := keys.Ref{Org: "acme", ID: key.ID}

	_, err := mgr.Disable(ctx, keys.Actor{ID: "u1"}, ref)
	fmt.Println(err)
	key, err = mgr.Disable(ctx, keys.Actor{ID: "u9", Role: keys.Owner}, ref)
	fmt.Println(key.DisabledAt.Format(time.RFC3339), err)
	// Output:
	// keys: only an owner may do this
	// 2026-03-01T12:00:00Z <nil>
}

func ExampleManager_Enable() {
	ctx := context.Background()
	mgr := newManager(nil)
	key := newKey(mgr)
	owner := keys.Actor{ID: "u9", Role: keys.Owner}
	ref := keys.Ref{Org: "acme", ID: key.ID}
	if _, err := mgr.Disable(ctx, owner, ref); err != nil {
		log.Fatal(err)
	}
	key, err := mgr.Enable(ctx, owner, ref)
	fmt.Println(key.DisabledAt.IsZero(), err)
	// Output: true <nil>
}

func ExampleManager_Rotate() {
	ctx := context.Background()
	mgr := newManager(nil)
	old := newKey(mgr)
	tok, key, err := mgr.Rotate(ctx, keys.RotateParams{
		Actor: keys.Actor{ID: "u1"},
		Ref:   keys.Ref{Org: "acme", User: "u1", ID: old.ID},
		Grace: 24 * time.Hour, // time to put the new token everywhere
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(tok.ID() == key.ID, key.ID != old.ID, key.Family == old.Family)

	old, err = mgr.Get(ctx, keys.Ref{Org: "acme", User: "u1", ID: old.ID})
	fmt.Println(old.RevokedAt.Format(time.RFC3339), err)
	// Output:
	// true true true
	// 2026-03-02T12:00:00Z <nil>
}

func ExampleManager_Revoke() {
	ctx := context.Background()
	mgr := newManager(nil)
	key := newKey(mgr)
	actor, ref := keys.Actor{ID: "u1"}, keys.Ref{Org: "acme", User: "u1", ID: key.ID}
	fmt.Println(mgr.Revoke(ctx, actor, ref))
	fmt.Println(errors.Is(mgr.Revoke(ctx, actor, ref), store.ErrNotFound))
	// Output:
	// <nil>
	// true
}

// A push of what the host knows leaves the grant alone.
func ExampleManager_PutUser() {
	ctx := context.Background()
	mgr := newManager(nil)
	if err := mgr.SetPermitted(ctx, keys.Actor{Role: keys.Owner}, "acme", "u1", true); err != nil {
		log.Fatal(err)
	}
	err := mgr.PutUser(ctx, &store.User{Org: "acme", ID: "u1", Email: "ada.lovelace@acme.example", Tier: "Team"})
	if err != nil {
		log.Fatal(err)
	}
	u, err := mgr.User(ctx, "acme", "u1")
	fmt.Println(u.Email, u.Tier, u.Permitted, err)
	// Output: ada.lovelace@acme.example Team true <nil>
}

func ExampleManager_SetPermitted() {
	ctx := context.Background()
	mgr := newManager(nil)
	owner := keys.Actor{ID: "u9", Role: keys.Owner}
	_, err := mgr.UpdateSettings(ctx, owner, &policy.Settings{Org: "acme", RestrictUsers: true})
	if err != nil {
		log.Fatal(err)
	}
	p := keys.CreateParams{Org: "acme", User: "u1", Name: "SIEM export"}
	_, _, err = mgr.Create(ctx, p)
	fmt.Println(errors.Is(err, keys.ErrNotPermitted))

	fmt.Println(mgr.SetPermitted(ctx, owner, "acme", "u1", true))
	_, _, err = mgr.Create(ctx, p)
	fmt.Println(err)
	// Output:
	// true
	// <nil>
	// <nil>
}

func ExampleManager_User() {
	mgr := newManager(nil)
	u, err := mgr.User(context.Background(), "acme", "u1")
	fmt.Println(u.Email, u.Permitted, err)
	// Output: ada@acme.example false <nil>
}

func ExampleManager_SignIn() {
	mgr := newManager(nil)
	errSuspended := errors.New("suspended")
	u, err := mgr.SignIn(context.Background(), "acme", "u1", func(u *store.User) error {
		if !u.SuspendedAt.IsZero() {
			return errSuspended
		}
		u.Tier = "Team" // as the token says
		return nil
	})
	fmt.Println(u.Email, u.Tier, err)
	// Output: ada@acme.example Team <nil>
}

func ExampleManager_Users() {
	mgr := newManager(nil)
	users, err := mgr.Users(context.Background(), store.UserQuery{Org: "acme"})
	fmt.Println(len(users), users[0].ID, err)
	// Output: 1 u1 <nil>
}

func ExampleManager_Settings() {
	mgr := newManager(nil)
	s, err := mgr.Settings(context.Background(), "acme")
	fmt.Println(s.MaxAge, s.RestrictUsers, s.Version, err)
	// Output: 0s false 0 <nil>
}

func ExampleManager_UpdateSettings() {
	ctx := context.Background()
	mgr := newManager(nil)
	s, err := mgr.Settings(ctx, "acme")
	if err != nil {
		log.Fatal(err)
	}
	changed := *s
	changed.MaxAge = 90 * 24 * time.Hour
	s, err = mgr.UpdateSettings(ctx, keys.Actor{ID: "u9", Role: keys.Owner}, &changed)
	fmt.Println(s.MaxAge, s.Version, err)
	// Output: 2160h0m0s 1 <nil>
}

// Settings that are made anew, and not from those in force, would undo what others
// have set. They are refused.
func ExampleManager_UpdateSettings_incorrect() {
	ctx := context.Background()
	mgr := newManager(nil)
	owner := keys.Actor{ID: "u9", Role: keys.Owner}
	_, err := mgr.UpdateSettings(ctx, owner, &policy.Settings{Org: "acme", RestrictUsers: true})
	if err != nil {
		log.Fatal(err)
	}
	_, err = mgr.UpdateSettings(ctx, owner, &policy.Settings{Org: "acme", MaxAge: 90 * 24 * time.Hour})
	fmt.Println(errors.Is(err, store.ErrConflict))
	// Output: true
}

func ExampleManager_Purge() {
	ctx := context.Background()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	mgr := newManager(&keys.Options{Now: func() time.Time { return now }})
	key := newKey(mgr)
	if err := mgr.Revoke(ctx, keys.Actor{ID: "u1"}, keys.Ref{Org: "acme", User: "u1", ID: key.ID}); err != nil {
		log.Fatal(err)
	}
	const retention = 30 * 24 * time.Hour
	n, err := mgr.Purge(ctx, retention)
	fmt.Println(n, err)
	now = now.Add(retention + time.Second)
	n, err = mgr.Purge(ctx, retention)
	fmt.Println(n, err)
	// Output:
	// 0 <nil>
	// 1 <nil>
}

func ExampleStatusOf() {
	ctx := context.Background()
	mgr := newManager(nil)
	key := newKey(mgr)
	user, err := mgr.User(ctx, key.Org, key.User)
	if err != nil {
		log.Fatal(err)
	}
	record := store.NewRecord(key, user)
	settings := &policy.Settings{Org: "acme", MaxAge: 30 * 24 * time.Hour, RestrictUsers: true}
	for _, days := range []int{0, 30} {
		status := keys.StatusOf(record, settings, key.CreatedAt.AddDate(0, 0, days))
		fmt.Println(status.State, status.Reasons, status.ExpiresAt.Format(time.DateOnly))
	}
	// Output:
	// disabled_by_owner [user_not_permitted] 2026-03-31
	// disabled_by_owner [user_not_permitted expired] 2026-03-31
}

// A sink of the host's own, here one that prints.
type printer struct{}

func (printer) Write(_ context.Context, e audit.Event) error {
	fmt.Printf("%s of %s by %s %q: %q %q %v\n", e.Phase, e.Action, e.Actor.Role, e.Actor.ID, e.Outcome, e.Reason, e.Changes)
	return nil
}

// With a trail that is required nothing is done that was not announced.
func ExampleOptions_audit() {
	ctx := context.Background()
	mgr := newManager(&keys.Options{Audit: printer{}, AuditRequired: true})
	owner := keys.Actor{ID: "u9", Role: keys.Owner, Credential: policy.JWT, Addr: netip.MustParseAddr("192.0.2.9")}
	if err := mgr.SetPermitted(ctx, owner, "acme", "u1", true); err != nil {
		log.Fatal(err)
	}
	err := mgr.SetPermitted(ctx, keys.Actor{ID: "u1"}, "acme", "u1", true)
	fmt.Println(err)
	// Output:
	// intent of user.put by operator "": "" "" [{email  ada@acme.example} {tier  Pro}]
	// outcome of user.put by operator "": "success" "" [{email  ada@acme.example} {tier  Pro}]
	// intent of user.permission by owner "u9": "" "" [{permitted false true}]
	// outcome of user.permission by owner "u9": "success" "" [{permitted false true}]
	// outcome of user.permission by user "u1": "failure" "forbidden" []
	// keys: only an owner may do this
}

func ExampleManager_Table() {
	ctx := context.Background()
	mgr := newManager(nil)
	newKey(mgr)
	q := keys.TableQuery{Org: "acme", Creator: "ada@", State: keys.Active, Limit: 10}
	for {
		rows, next, err := mgr.Table(ctx, q)
		if err != nil {
			log.Fatal(err)
		}
		for _, r := range rows {
			fmt.Println(r.User.Email, r.Key.Name, r.Status.State, r.Uses.LastUsed.IsZero())
		}
		if next == (store.Cursor{}) {
			break
		}
		q.After = next
	}
	// Output: ada@acme.example SIEM export active true
}

// A page can have fewer rows than asked for before the last: only next tells.
func ExampleManager_Table_incorrect() {
	ctx := context.Background()
	mgr := newManager(nil)
	newKey(mgr)
	q := keys.TableQuery{Org: "acme", State: keys.Expired, Limit: 10}
	rows, next, err := mgr.Table(ctx, q)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("the last page, incorrect:", len(rows) < q.Limit)
	fmt.Println("the last page:", next == (store.Cursor{}))
	// Output:
	// the last page, incorrect: true
	// the last page: true
}

func ExampleManager_Row() {
	mgr := newManager(nil)
	key := newKey(mgr)
	row, err := mgr.Row(context.Background(), keys.Ref{Org: "acme", User: "u1", ID: key.ID})
	fmt.Println(row.User.Email, row.Status.State, err)
	// Output: ada@acme.example active <nil>
}

func ExampleManager_Places() {
	mgr := newManager(nil)
	newKey(mgr)
	p, err := mgr.Places(context.Background(), "acme", "u1")
	fmt.Println(len(p.KeyIDs), "of", p.Limit, err)
	// Output: 1 of 5 <nil>
}

func ExampleManager_Allowance() {
	mgr := newManager(&keys.Options{MaxPerUser: 1})
	newKey(mgr)
	a, err := mgr.Allowance(context.Background(), keys.Actor{ID: "u1"}, "acme", "u1")
	fmt.Println(len(a.Places.KeyIDs), "of", a.Places.Limit, a.MaxDailyLimit, a.Refusal, err)
	// Output: 1 of 1 250 keys: limit of 1 per user reached <nil>
}

func ExampleManager_Days() {
	mgr := newManager(nil)
	_, days, err := mgr.Days(context.Background(), keys.Ref{Org: "acme", User: "u1", ID: newKey(mgr).ID})
	fmt.Println(len(days), days[29].Count, err)
	// Output: 30 0 <nil>
}

func ExampleManager_Preview() {
	ctx := context.Background()
	mgr := newManager(nil)
	newKey(mgr)
	settings, err := mgr.Settings(ctx, "acme")
	if err != nil {
		log.Fatal(err)
	}
	proposed := *settings
	proposed.RestrictUsers = true
	p, err := mgr.Preview(ctx, &proposed, 7*24*time.Hour)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(p.Changed, "of", p.Keys, "keys would change, of", p.Users, "people")
	for _, c := range p.Changes {
		fmt.Println(c.User, c.Name, c.From.State, c.To.State, c.To.Reasons)
	}
	// Output:
	// 1 of 1 keys would change, of 1 people
	// u1 SIEM export active disabled_by_owner [user_not_permitted]
}

func ExampleManager_Explain() {
	ctx := context.Background()
	limiter := ratelimit.NewDaily(ratelimit.NewMemory(), nil) // the Guard's
	mgr := newManager(&keys.Options{Limiter: limiter})
	key := newKey(mgr)
	list, err := policy.ParseIPList("198.51.100.0/24")
	if err != nil {
		log.Fatal(err)
	}
	_, err = mgr.UpdateSettings(ctx, keys.Actor{ID: "u9", Role: keys.Owner}, &policy.Settings{Org: "acme", AllowedIPs: list})
	if err != nil {
		log.Fatal(err)
	}

	e, err := mgr.Explain(ctx, keys.Ref{Org: "acme", ID: key.ID}, netip.MustParseAddr("192.0.2.7"))
	if err != nil {
		log.Fatal(err)
	}
	for _, v := range e.Verdicts {
		fmt.Println(v.Rule, v.Decision)
	}
	fmt.Println(e.Decision.Reason, e.Status.State, e.Quota.Used, e.Quota.Limit)
	// Output:
	// known {true }
	// revoked {true }
	// suspended {true }
	// enabled {true }
	// permitted {true }
	// expiry {true }
	// address {false address_not_allowed}
	// quota {true }
	// address_not_allowed active 0 250
}

func ExampleRole_String() {
	fmt.Println(keys.PlainUser, keys.Owner, keys.Operator)
	// Output: user owner operator
}

// The API of the host refuses somebody who is no owner before it asks the Manager:
// the trail is told of it all the same.
func ExampleManager_Refused() {
	mgr, err := keys.New(memstore.New(), &keys.Options{Audit: printed{}})
	if err != nil {
		fmt.Println(err)
		return
	}
	ann := keys.Actor{ID: "ann"}
	mgr.Refused(context.Background(), audit.SettingsUpdate, ann, keys.Ref{Org: "acme"}, keys.ErrForbidden)
	// Output: ann settings.update acme failure forbidden
}

// printed is a Sink that prints.
type printed struct{}

func (printed) Write(_ context.Context, e audit.Event) error {
	_, err := fmt.Println(e.Actor.ID, e.Action, e.Org, e.Outcome, e.Reason)
	return err
}
