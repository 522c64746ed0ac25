package simulate_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/keystile/keystile/policy"
	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/store/keys"
)

// A holder is who was given a token.
type holder struct {
	token  string
	key    row
	user   row
	family string
}

// people are the users of the organizations.
func people() (all []row) {
	for _, org := range []string{"acme", "bolt"} {
		for i := range 3 {
			all = append(all, row{aUser, org, fmt.Sprint(org, "-", i)})
		}
	}
	return all
}

// emails are those that a user has at one time or another: the first is no other
// than its ID.
func emails(user row) []string {
	return []string{"", user.id + "@old.example", user.id + "@new.example"}
}

// lists are texts of allowlists, and which of addrs are in them.
var (
	addrs = []string{"192.0.2.7", "192.0.2.77", "198.51.100.5", "2001:db8::7", "203.0.113.9"}
	lists = []struct {
		text string
		has  []string
	}{
		{"", addrs},
		{"192.0.2.0/24", []string{"192.0.2.7", "192.0.2.77"}},
		{"192.0.2.1 - 192.0.2.9\n2001:db8::/32", []string{"192.0.2.7", "2001:db8::7"}},
		{"198.51.100.5\n203.0.113.9\n192.0.2.77", []string{"198.51.100.5", "203.0.113.9", "192.0.2.77"}},
		{"# nobody", nil},
	}
)

// populate makes the users.
func (w *world) populate() {
	for _, u := range people() {
		w.must(w.ledger.write(context.Background(), func() error {
			return w.ledger.store.PutUser(context.Background(), &store.User{Org: u.org, ID: u.id, Permitted: true})
		}, u))
	}
	for _, org := range []string{"acme", "bolt"} {
		w.must(w.ledger.write(context.Background(), func() error { return nil }, row{aSettings, org, ""}))
	}
}

// An operator does what people do to keys, users and settings, through any node.
type operator struct {
	w    *world
	id   string
	dice *rand.Rand
}

func newOperator(w *world, i int) *operator {
	return &operator{w, fmt.Sprint("operator ", i), rand.New(rand.NewPCG(w.conf.seed, fnv("operator", i)))}
}

var actor = keys.Actor{ID: "operator", Role: keys.Operator}

// act acts until the world is over.
func (o *operator) act() {
	acts := []struct {
		weight int
		do     func(ctx context.Context, n *node) (what string, rows []row, err error)
	}{
		{20, o.create},
		{8, o.rotate},
		{10, o.revoke},
		{8, o.disable},
		{8, o.enable},
		{10, o.limit},
		{6, o.end},
		{10, o.permit},
		{10, o.push},
		{8, o.maxAge},
		{12, o.list},
		{10, o.restrict},
	}
	sum := 0
	for _, a := range acts {
		sum += a.weight
	}
	for {
		pause(50*time.Millisecond + time.Duration(o.dice.Int64N(int64(700*time.Millisecond))))
		if o.w.over.Load() {
			return
		}
		p, i := o.dice.IntN(sum), 0
		for ; p >= acts[i].weight; i++ {
			p -= acts[i].weight
		}
		if n := o.w.anyNode(o.dice); n != nil {
			o.once(n, acts[i].do)
			n.leave()
		}
	}
}

// once acts through n, and takes account of what it returns.
func (o *operator) once(n *node, do func(ctx context.Context, n *node) (string, []row, error)) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	what, rows, err := do(ctx, n)
	o.w.tracef("%s on node %d: %s: %v", o.id, n.id, what, err)
	o.w.happened(o.id, n.id, err == nil)
	switch {
	case err == nil:
		for _, r := range rows {
			n.known.tell(r)
		}
	case !expected(err):
		o.w.violation("%s: %v", what, err)
	case o.w.calm.Load() && (errors.Is(err, errFault) || errors.Is(err, context.DeadlineExceeded)):
		o.w.violation("%s fails when all is well: %v", what, err)
	}
}

// expected reports whether err can come of an act.
func expected(err error) bool {
	for _, e := range []error{
		errFault, errDead, context.DeadlineExceeded,
		store.ErrNotFound, store.ErrConflict, store.ErrLimit,
		keys.ErrNotActive, keys.ErrSuspended, keys.ErrNotPermitted,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	field, ok := errors.AsType[*keys.FieldError](err)
	return ok && field.Field == "NotAfter" // of a node whose clock is ahead
}

// anyToken returns who was given a token, mostly of late; nil if nobody was.
func (w *world) anyToken(dice *rand.Rand) *holder {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.tokens) == 0 {
		return nil
	}
	back := min(dice.IntN(len(w.tokens)), dice.IntN(len(w.tokens)), 20)
	return w.tokens[len(w.tokens)-1-back]
}

func (w *world) give(h *holder) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tokens = append(w.tokens, h)
}

func refOf(k *store.Key) keys.Ref { return keys.Ref{Org: k.Org, User: k.User, ID: k.ID} }

func (h *holder) ref() keys.Ref { return keys.Ref{Org: h.key.org, User: h.user.id, ID: h.key.id} }

func pick[T any](dice *rand.Rand, of ...T) T { return of[dice.IntN(len(of))] }

func (o *operator) someLimit() int64 { return pick[int64](o.dice, 0, 0, 3, 12, 25, 60, -1) }

func (o *operator) create(ctx context.Context, n *node) (string, []row, error) {
	u := pick(o.dice, people()...)
	p := keys.CreateParams{DailyLimit: o.someLimit()}
	if o.dice.IntN(5) == 0 {
		p.NotAfter = n.clock.Now().Add(time.Duration(1 + o.dice.Int64N(int64(40*time.Second))))
	}
	if o.dice.IntN(5) == 0 {
		p.CreatedAt = n.clock.Now().Add(-time.Duration(o.dice.Int64N(int64(60 * time.Second))))
	}
	return o.createFor(ctx, n, u, p)
}

// createFor makes a key for a user, and gives away its token.
func (o *operator) createFor(ctx context.Context, n *node, u row, p keys.CreateParams) (string, []row, error) {
	p.Actor, p.Org, p.User, p.Name = actor, u.org, u.id, "k"
	began := time.Now()
	t, k, err := n.manager.Create(ctx, p)
	if err != nil {
		return "create for " + u.id, nil, err
	}
	h := &holder{token: t.Reveal(), key: row{aKey, k.Org, k.ID}, user: u, family: k.Family}
	o.w.acknowledged(h.key, began, func(k *store.Key) bool { return k.Name == "k" })
	o.w.give(h)
	return fmt.Sprint("create ", k.ID, " for ", u.id), []row{h.key}, nil
}

func (o *operator) rotate(ctx context.Context, n *node) (string, []row, error) {
	h := o.w.anyToken(o.dice)
	if h == nil {
		return "rotate nothing", nil, nil
	}
	grace := pick(o.dice, 0, 0, 3*time.Second, 20*time.Second)
	began := time.Now()
	t, k, err := n.manager.Rotate(ctx, keys.RotateParams{Actor: actor, Ref: h.ref(), Grace: grace})
	what := fmt.Sprint("rotate ", h.key.id, " with ", grace)
	if err != nil {
		return what, nil, err
	}
	o.w.acknowledged(h.key, began, func(k *store.Key) bool { return !k.RevokedAt.IsZero() && k.Revoked == (grace == 0) })
	next := &holder{token: t.Reveal(), key: row{aKey, k.Org, k.ID}, user: h.user, family: k.Family}
	o.w.acknowledged(next.key, began, func(k *store.Key) bool { return k.Family == h.family })
	o.w.give(next)
	return what, []row{h.key, next.key}, nil
}

func (o *operator) revoke(ctx context.Context, n *node) (string, []row, error) {
	h := o.w.anyToken(o.dice)
	if h == nil {
		return "revoke nothing", nil, nil
	}
	began := time.Now()
	err := n.manager.Revoke(ctx, actor, h.ref())
	what := "revoke " + h.key.id
	if errors.Is(err, store.ErrNotFound) {
		return what + ", which it is", []row{h.key}, nil // what its caller takes for success
	}
	if err == nil {
		o.w.acknowledged(h.key, began, func(k *store.Key) bool { return k.Revoked })
	}
	return what, []row{h.key}, err
}

func (o *operator) disable(ctx context.Context, n *node) (string, []row, error) {
	return o.update(ctx, n, "disable", func(ctx context.Context, ref keys.Ref) error {
		_, err := n.manager.Disable(ctx, actor, ref)
		return err
	}, func(k *store.Key) bool { return !k.DisabledAt.IsZero() })
}

func (o *operator) enable(ctx context.Context, n *node) (string, []row, error) {
	return o.update(ctx, n, "enable", func(ctx context.Context, ref keys.Ref) error {
		_, err := n.manager.Enable(ctx, actor, ref)
		return err
	}, func(k *store.Key) bool { return k.DisabledAt.IsZero() })
}

func (o *operator) limit(ctx context.Context, n *node) (string, []row, error) {
	limit := o.someLimit()
	return o.update(ctx, n, fmt.Sprint("limit to ", limit), func(ctx context.Context, ref keys.Ref) error {
		_, err := n.manager.Update(ctx, keys.UpdateParams{Actor: actor, Ref: ref, DailyLimit: &limit})
		return err
	}, func(k *store.Key) bool { return k.DailyLimit == limit })
}

func (o *operator) end(ctx context.Context, n *node) (string, []row, error) {
	end := n.clock.Now().Add(time.Duration(1 + o.dice.Int64N(int64(30*time.Second))))
	if o.dice.IntN(3) == 0 {
		end = time.Time{}
	}
	return o.update(ctx, n, fmt.Sprint("end at ", end), func(ctx context.Context, ref keys.Ref) error {
		_, err := n.manager.Update(ctx, keys.UpdateParams{Actor: actor, Ref: ref, NotAfter: &end})
		return err
	}, func(k *store.Key) bool { return k.NotAfter.Equal(end.Truncate(time.Microsecond)) })
}

// update does something to a key.
func (o *operator) update(ctx context.Context, n *node, what string, do func(context.Context, keys.Ref) error, is func(*store.Key) bool) (string, []row, error) {
	h := o.w.anyToken(o.dice)
	if h == nil {
		return what + " nothing", nil, nil
	}
	began := time.Now()
	err := do(ctx, h.ref())
	if err == nil {
		o.w.acknowledged(h.key, began, is)
	}
	return what + " " + h.key.id, []row{h.key}, err
}

func (o *operator) permit(ctx context.Context, n *node) (string, []row, error) {
	u, yes := pick(o.dice, people()...), o.dice.IntN(3) > 0
	return fmt.Sprint("permit ", u.id, ": ", yes), []row{u}, n.manager.SetPermitted(ctx, actor, u.org, u.id, yes)
}

// push tells of a user what a host knows.
func (o *operator) push(ctx context.Context, n *node) (string, []row, error) {
	r := pick(o.dice, people()...)
	u := &store.User{Org: r.org, ID: r.id, Email: pick(o.dice, emails(r)...)}
	if o.dice.IntN(4) == 0 {
		u.SuspendedAt = n.clock.Now()
	}
	began := time.Now()
	err := n.manager.PutUser(ctx, u)
	if err == nil && !held(o.w.ledger, func() *history[store.User] { return o.w.ledger.users[r] }, began, time.Now(), func(v *store.User) bool {
		return v.Email == u.Email && v.SuspendedAt.IsZero() == u.SuspendedAt.IsZero()
	}) {
		o.w.violation("what was told of %v was lost", r)
	}
	return fmt.Sprintf("push %s: %q, suspended: %t", r.id, u.Email, !u.SuspendedAt.IsZero()), []row{r}, err
}

func (o *operator) maxAge(ctx context.Context, n *node) (string, []row, error) {
	age := pick(o.dice, 0, 0, 5*time.Second, 30*time.Second, 90*time.Second)
	return o.settings(ctx, n, fmt.Sprint("period of ", age), func(s *policy.Settings) { s.MaxAge = age })
}

func (o *operator) list(ctx context.Context, n *node) (string, []row, error) {
	text := lists[o.dice.IntN(len(lists))].text
	if o.dice.IntN(3) == 0 {
		text = ""
	}
	return o.settings(ctx, n, fmt.Sprintf("list %q", text), func(s *policy.Settings) {
		var err error
		s.AllowedIPs, err = policy.ParseIPList(text)
		o.w.must(err)
	})
}

func (o *operator) restrict(ctx context.Context, n *node) (string, []row, error) {
	yes := o.dice.IntN(3) == 0
	return o.settings(ctx, n, fmt.Sprint("restrict: ", yes), func(s *policy.Settings) { s.RestrictUsers = yes })
}

// settings changes those of an organization.
func (o *operator) settings(ctx context.Context, n *node, what string, change func(*policy.Settings)) (string, []row, error) {
	org := pick(o.dice, "acme", "bolt")
	what += " for " + org
	have, err := n.manager.Settings(ctx, org)
	if err != nil {
		return what, nil, err
	}
	s := *have
	change(&s)
	began := time.Now()
	written, err := n.manager.UpdateSettings(ctx, actor, &s)
	if err != nil {
		return what, nil, err
	}
	if !held(o.w.ledger, func() *history[policy.Settings] { return o.w.ledger.settings[org] }, began, time.Now(), func(v *policy.Settings) bool {
		return v.Version == written.Version && v.MaxAge == s.MaxAge && v.RestrictUsers == s.RestrictUsers && v.AllowedIPs.String() == s.AllowedIPs.String()
	}) {
		o.w.violation("settings of %s that were acknowledged were lost", org)
	}
	return what, []row{{aSettings, org, ""}}, nil
}

// acknowledged is called when an act on a key has returned without an error: what it
// did is in the store, or was until somebody undid it.
func (w *world) acknowledged(key row, began time.Time, is func(*store.Key) bool) {
	if !held(w.ledger, func() *history[store.Key] { return w.ledger.keys[key.id] }, began, time.Now(), is) {
		w.violation("an act on %v that was acknowledged was lost", key)
	}
}
