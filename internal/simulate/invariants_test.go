package simulate_test

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/keystile/keystile/policy"
	"github.com/keystile/keystile/ratelimit"
	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/store/keys"
)

// A judgement knows what can be right for a request, from when it was sent.
type judgement struct {
	w *world
	request
	began time.Time
	clock time.Time // of the node, when the request began
	quota quota

	keyKnown, userKnown, settingsKnown func(changed time.Time) bool

	served int64 // of the quota, for sure before this request
}

func (w *world) judgement(q request) *judgement {
	j := &judgement{w: w, request: q, began: time.Now(), clock: q.node.clock.Now()}
	known := func(r row) func(time.Time) bool { return q.node.known.at(j.began, r, w.conf.bound()) }
	j.keyKnown = known(q.holder.key)
	j.userKnown = known(q.holder.user)
	j.settingsKnown = known(row{aSettings, q.holder.key.org, ""})
	j.quota = quota{q.holder.family, j.clock.UTC().Truncate(24 * time.Hour).Add(24 * time.Hour)}
	j.served = w.quotas.read(j.quota).served
	return j
}

// verdicts returns every reason that the node can have, "" among them if it may
// admit, and the limits that it can go by.
func (j *judgement) verdicts() (reasons []policy.Reason, limits []int64) {
	l := j.w.ledger
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	users := candidates(l.users[j.holder.user], j.userKnown, now)
	settings := candidates(l.settings[j.holder.key.org], j.settingsKnown, now)
	for _, k := range candidates(l.keys[j.holder.key.id], j.keyKnown, now) {
		if k != nil {
			limits = append(limits, limitOf(k))
		}
		for _, u := range users {
			for _, s := range settings {
				if r := j.verdict(k, u, s); !slices.Contains(reasons, r) {
					reasons = append(reasons, r)
				}
			}
		}
	}
	return reasons, limits
}

// verdict is what the rules say: nothing if the request is allowed, and else the
// first reason why it is not (S72).
func (j *judgement) verdict(k *store.Key, u *store.User, s *policy.Settings) policy.Reason {
	past := func(t time.Time) bool { return !j.clock.Before(t) } // the instant itself has passed (D22)
	if k == nil || u == nil {
		return policy.InvalidToken
	}
	email := u.Email
	if email == "" {
		email = u.ID
	}
	switch {
	case j.email != "" && j.email != email: // S3
		return policy.InvalidToken
	case k.Revoked, !k.RevokedAt.IsZero() && past(k.RevokedAt): // S19, D39
		return policy.InvalidToken
	case !u.SuspendedAt.IsZero(): // D17
		return policy.InvalidToken
	case !k.DisabledAt.IsZero():
		return policy.KeyDisabled
	case s != nil && s.RestrictUsers && !u.Permitted: // S26
		return policy.UserNotPermitted
	case s != nil && s.MaxAge > 0 && past(k.CreatedAt.Add(s.MaxAge)): // S37, S38
		return policy.Expired
	case !k.NotAfter.IsZero() && past(k.NotAfter): // D23
		return policy.Expired
	case s != nil && !listed(s.AllowedIPs.String(), j.addr): // S45
		return policy.AddressNotAllowed
	}
	return ""
}

// listed reports whether an address is in a list.
func listed(text, addr string) bool {
	for _, l := range lists {
		if normal, err := policy.ParseIPList(l.text); err == nil && normal.String() == text {
			return slices.Contains(l.has, addr)
		}
	}
	return false
}

// judge looks at what came of the request.
func (j *judgement) judge(a *answer) {
	w := j.w
	reasons, limits := j.verdicts()
	may := slices.Contains(reasons, "")
	if may {
		w.quotas.change(j.quota, func(t *tally) { t.goneBy(limits) })
	}
	if j.node.wire.dead.Load() {
		// Nobody got an answer, but it may have been counted.
		w.quotas.change(j.quota, func(t *tally) { t.unknown++ })
		return
	}
	if a.served != (a.status == http.StatusOK) {
		w.violation("answered with %d, and served: %t", a.status, a.served)
	}
	switch a.reason() {
	case "":
		w.admitted.Add(1)
		if !may {
			w.violation("node %d admitted %s of %s with %q from %s by its clock of %s, which can only be refused with %q",
				j.node.id, j.holder.key.id, j.holder.user.id, j.email, j.addr, j.clock.Format(time.StampMicro), reasons)
		}
		j.spent(limits)
	case policy.StoreUnavailable:
		if may {
			w.quotas.change(j.quota, func(t *tally) { t.unknown++ })
		}
		if w.calm.Load() {
			w.violation("node %d fails when all is well: %v", j.node.id, a.event.Err)
		}
	case policy.DailyLimit:
		least := slices.Min(append(limits, 1<<40))
		t := w.quotas.read(j.quota)
		if !may || t.peak < least {
			w.violation("node %d refused %s for a limit of %d when the count was never above %d, and %q are right",
				j.node.id, j.holder.key.id, least, t.peak, reasons)
		}
	default:
		if !slices.Contains(reasons, a.reason()) {
			w.violation("node %d refused %s of %s with %q from %s by its clock of %s for %s, and only %q are right",
				j.node.id, j.holder.key.id, j.holder.user.id, j.email, j.addr, j.clock.Format(time.StampMicro), a.reason(), reasons)
		}
	}
}

// borrowed reports whether the node may have got the unit of the request long before,
// by one of the limits.
func (j *judgement) borrowed(limits []int64) bool {
	return slices.ContainsFunc(limits, func(l int64) bool { return j.node.wire.holds(loan{j.quota, l}) })
}

// spent notes an admitted request, by the limits that the node could go by.
func (j *judgement) spent(limits []int64) {
	limit := slices.Max(append(limits, 0))
	var most int64
	t := j.w.quotas.change(j.quota, func(t *tally) {
		t.served++
		t.uses(j.holder.key.id, j.began, j.clock)
		most = t.highest()
	})
	switch {
	case j.served >= limit && !j.borrowed(limits):
		// A unit that a node borrowed below its limit is its own, also when others go by a
		// higher one meanwhile.
		j.w.violation("%v: %d were admitted, and then one more by a limit of %d", j.quota, j.served, limit)
	case t.served > most:
		j.w.violation("%v: %d were admitted, more than the highest limit of the day, %d", j.quota, t.served, most)
	}
}

// A quota is what a family of keys has in a day, which is named by its end.
type quota struct {
	family string
	end    time.Time
}

func (q quota) String() string { return q.family + " until " + q.end.Format(time.DateOnly) }

// A tally is what happened to a quota.
type tally struct {
	served  int64 // to clients
	unknown int64 // requests that may have been counted
	peak    int64 // the highest count that the store ever had
	forfeit int64 // loans that may have got lost, but for those of nodes that crashed

	limits map[int64]bool // that nodes could go by

	keys map[string]*use // of the family
}

// highest is the highest limit that a node could go by.
func (t *tally) highest() (limit int64) {
	for l := range t.limits {
		limit = max(limit, l)
	}
	return limit
}

// A use is what a store should know of the use of a key.
type use struct {
	count int64
	last  time.Time // by the clocks of the nodes
	began time.Time // of the last, in truth
	final time.Time // the same, by the clock of its node
}

func (t *tally) goneBy(limits []int64) {
	if t.limits == nil {
		t.limits = make(map[int64]bool)
	}
	for _, l := range limits {
		t.limits[l] = true
	}
}

func (t *tally) uses(key string, began, at time.Time) {
	if t.keys == nil {
		t.keys = make(map[string]*use)
	}
	u := t.keys[key]
	if u == nil {
		u = new(use)
		t.keys[key] = u
	}
	u.count++
	at = at.UTC().Truncate(time.Microsecond)
	if at.After(u.last) {
		u.last = at
	}
	if !began.Before(u.began) {
		u.began, u.final = began, at
	}
}

// quotas are all tallies.
type quotas struct {
	mu   sync.Mutex
	days map[quota]*tally
}

func (q *quotas) read(of quota) tally { return q.change(of, func(*tally) {}) }

func (q *quotas) change(of quota, do func(t *tally)) tally {
	q.mu.Lock()
	defer q.mu.Unlock()
	t := q.days[of]
	if t == nil {
		t = new(tally)
		q.days[of] = t
	}
	do(t)
	return *t
}

// counted notes a count of the store.
func (w *world) counted(key string, end time.Time, count int64) {
	w.quotas.change(quota{key, end.UTC().Round(0)}, func(t *tally) { t.peak = max(t.peak, count) })
}

// forfeit notes that a loan may have got lost.
func (w *world) forfeit(key string, end time.Time) {
	w.quotas.change(quota{key, end.UTC().Round(0)}, func(t *tally) { t.forfeit++ })
}

// aftermath looks whether everything works again, on every node, when faults have
// stopped and enough time has passed.
func (w *world) aftermath() {
	w.calm.Store(true)
	for _, n := range w.nodes {
		n.wire.cut.Store(false)
		n.clock.set(0)
	}
	w.tracef("calm")
	pause(w.conf.bound() + 15*time.Second)
	if w.failed.Load() != nil {
		return
	}
	for _, n := range w.nodes {
		for _, h := range w.tokens[max(len(w.tokens)-15, 0):] {
			w.send("aftermath", request{node: n, holder: h, addr: addrs[0]})
		}
	}
	for i, n := range w.nodes {
		w.life(n, w.nodes[(i+1)%len(w.nodes)])
	}
}

// life makes a key through one node, and ends it through another: meanwhile it works
// everywhere, and then nowhere.
func (w *world) life(from, to *node) {
	o := newOperator(w, -1)
	u := people()[from.id%len(people())]
	do := func(n *node, f func(ctx context.Context, n *node) (string, []row, error)) {
		if w.failed.Load() == nil {
			o.once(n, f)
		}
	}
	do(from, func(ctx context.Context, n *node) (string, []row, error) {
		s, err := n.manager.Settings(ctx, u.org)
		if err == nil {
			_, err = n.manager.UpdateSettings(ctx, actor, &policy.Settings{Org: u.org, Version: s.Version})
		}
		return "lift everything", []row{{aSettings, u.org, ""}}, err
	})
	do(from, func(ctx context.Context, n *node) (string, []row, error) {
		return "tell of " + u.id, []row{u}, n.manager.PutUser(ctx, &store.User{Org: u.org, ID: u.id})
	})
	do(from, func(ctx context.Context, n *node) (string, []row, error) {
		all, err := n.manager.List(ctx, store.Query{Org: u.org, User: u.id})
		for _, k := range all {
			if err == nil {
				err = n.manager.Revoke(ctx, actor, refOf(k))
			}
		}
		return "revoke all of " + u.id, nil, err
	})
	made := len(w.tokens)
	for len(w.tokens) == made && w.failed.Load() == nil {
		do(from, func(ctx context.Context, n *node) (string, []row, error) {
			return o.createFor(ctx, n, u, keys.CreateParams{DailyLimit: -1})
		})
	}
	if w.failed.Load() != nil {
		return
	}
	h := w.tokens[made]
	expect := func(status int) {
		for _, n := range w.nodes {
			if a := w.send("life", request{node: n, holder: h, addr: addrs[0]}); a.status != status {
				w.violation("node %d answers %d %s to a key where %d is right", n.id, a.status, a.reason(), status)
			}
		}
	}
	pause(w.conf.bound() + time.Second)
	expect(http.StatusOK)
	do(to, func(ctx context.Context, n *node) (string, []row, error) {
		return "revoke " + h.key.id, []row{h.key}, n.manager.Revoke(ctx, actor, h.ref())
	})
	pause(w.conf.bound() + time.Second)
	expect(http.StatusUnauthorized)
}

// account looks at what was counted, when nobody holds anything any more: never
// less than was served, and no more than can have got lost. Where nothing can, a
// refused request has changed no counter (S72, D5).
func (w *world) account() {
	ctx := context.Background()
	for q, t := range w.quotas.days {
		count, _, err := w.counts.Add(ctx, q.family, q.end, 0, 0)
		w.must(err)
		lost := t.unknown + (w.crashes.Load()+t.forfeit)*ratelimit.LoanSize(t.highest(), t.highest(), 1)
		if w.conf.exact {
			lost = 0
		}
		if count < t.served || count > t.served+lost {
			w.violation("%v: %d were admitted and %d may have got lost, but %d are counted",
				q, t.served, lost, count)
		}
	}
	if w.conf.exact {
		w.accountUses(ctx)
	}
}

// accountUses looks at what is known of the use of keys, after every node has
// written the rest (S49, D24).
func (w *world) accountUses(ctx context.Context) {
	all := make(map[string]*use)
	for _, t := range w.quotas.days {
		for id, u := range t.keys {
			sum := all[id]
			if sum == nil {
				sum = new(use)
				all[id] = sum
			}
			sum.count += u.count
			if u.last.After(sum.last) {
				sum.last = u.last
			}
			if u.final.After(sum.final) {
				sum.final = u.final
			}
		}
	}
	for _, h := range w.tokens {
		known, err := w.ledger.store.Uses(ctx, h.key.org, []string{h.key.id})
		w.must(err)
		var count int64
		for _, d := range known[0].Days {
			count += d.Count
		}
		want := all[h.key.id]
		if want == nil {
			want = new(use)
		}
		if last := known[0].LastUsed; count != want.count || last.Before(want.final) || last.After(want.last) {
			w.violation("%s was used %d times, the last at %v, and %d times, the last at %v, are known",
				h.key.id, want.count, want.last, count, last)
		}
		if len(known[0].Addrs) > len(addrs) || strings.Contains(known[0].UserAgent, "csk_") {
			w.violation("%s was used from %v", h.key.id, known[0].Addrs)
		}
	}
}
