package keys

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/keystile/keystile/policy"
	"github.com/keystile/keystile/store"
)

// Bounds of a [Preview].
const (
	maxPreview      = 1000   // of each list
	maxPreviewAddrs = 10_000 // that are told apart
	maxPreviewKeys  = 100    // that are named for one address
)

// defaultRecent is what counts as recent use, unless told: as many days as are
// counted of each key.
const defaultRecent = store.MaxUseDays * 24 * time.Hour

// A Preview tells what settings would change, if they were put in force.
type Preview struct {
	Settings *policy.Settings // those in force, which the proposed ones were compared with

	Keys    int // of the organization, but for revoked ones
	Changed int // of them, those whose State would change
	Users   int // distinct users of those
	Recent  int // of the Changed, those used recently; -1 without [Options.Uses]

	// Changes are the keys whose State would change, newest first, at most 1000.
	Changes []StatusChange

	// RefusedAddrs is how many recently used addresses the proposed list would
	// refuse, counted up to 10 000; -1 without [Options.Uses].
	RefusedAddrs int

	// Refused are those addresses, that used last first, at most 1000. Addresses
	// that the list in force refuses already are among them.
	Refused []RefusedAddr
}

// A StatusChange is a key whose [State] the proposed settings would change.
type StatusChange struct {
	KeyID, User, Name string

	From, To Status
	LastUsed time.Time // zero: never, or unknown
}

// A RefusedAddr is an address that keys were recently used from and that the
// proposed list would refuse (D20).
type RefusedAddr struct {
	Addr     netip.Addr
	Keys     int       // how many keys were used from it
	KeyIDs   []string  // of them, the newest 100
	LastUsed time.Time // from that address, by any of the keys
}

// Preview tells which keys would change their state if the proposed settings were
// put in force now, and which addresses that were used in the last recent they
// would refuse. It changes nothing, and asks the rules that decide about requests.
// The Version of the proposed settings is not looked at. A recent of 0 is 30 days.
//
// It reads all keys of the organization, but keeps only what it returns, so that
// its memory is bounded. What is known of the use of keys is as complete as the
// middleware has written it.
//
// The errors are those of [policy.Settings.Validate], a [FieldError], and failures
// of the store.
func (m *Manager) Preview(ctx context.Context, proposed *policy.Settings, recent time.Duration) (Preview, error) {
	var ps problems
	ps.check("Org", checkOptionalText(proposed.Org)) // Validate refuses an empty one
	if recent < 0 {
		ps.add("Recent", "must not be negative")
	}
	if err := errors.Join(ps.err(), proposed.Validate()); err != nil {
		return Preview{}, err
	}
	p, err := m.preview(ctx, proposed, cmp.Or(recent, defaultRecent))
	if err != nil {
		return Preview{}, fmt.Errorf("keys: preview: %w", err)
	}
	return p, nil
}

func (m *Manager) preview(ctx context.Context, proposed *policy.Settings, recent time.Duration) (Preview, error) {
	current, err := m.store.Settings(ctx, proposed.Org)
	if err != nil {
		return Preview{}, err
	}
	now := m.now()
	c := &comparison{
		preview:  Preview{Settings: current},
		proposed: proposed,
		now:      now,
		since:    now.Add(-recent),
		users:    make(map[string]bool),
		addrs:    make(map[netip.Addr]*RefusedAddr),
	}
	d := m.directory(proposed.Org)
	for page, err := range m.pages(ctx, store.Query{Org: proposed.Org, Revoked: true, Limit: maxPage}) {
		if err != nil {
			return Preview{}, err
		}
		page = unrevoked(page, now)
		if err := d.find(ctx, page); err != nil {
			return Preview{}, err
		}
		ids := make([]string, len(page))
		for i, k := range page {
			ids[i] = k.ID
		}
		sums, err := m.summaries(ctx, proposed.Org, ids)
		if err != nil {
			return Preview{}, err
		}
		for i, k := range page {
			c.compare(d.record(k), sums[i])
		}
	}
	return c.result(m.uses != nil), nil
}

// A comparison collects a Preview.
type comparison struct {
	preview  Preview
	proposed *policy.Settings
	now      time.Time
	since    time.Time // from when on a use is recent
	users    map[string]bool
	addrs    map[netip.Addr]*RefusedAddr
}

// compare adds one key.
func (c *comparison) compare(r *store.Record, use store.UseSummary) {
	p := &c.preview
	p.Keys++
	from, to := StatusOf(r, p.Settings, c.now), StatusOf(r, c.proposed, c.now)
	if from.State != to.State {
		p.Changed++
		c.users[r.Key.User] = true
		if c.recent(use.LastUsed) {
			p.Recent++
		}
		if len(p.Changes) < maxPreview {
			p.Changes = append(p.Changes, StatusChange{r.Key.ID, r.Key.User, r.Key.Name, from, to, use.LastUsed})
		}
	}
	for _, a := range use.Addrs {
		req := policy.Request{Principal: r.Principal, Settings: c.proposed, Addr: a.Addr, Time: c.now}
		if c.recent(a.Last) && !policy.AllowedIPs().Evaluate(req).Allow {
			c.refuse(r.Key.ID, a)
		}
	}
}

func (c *comparison) recent(t time.Time) bool { return !t.IsZero() && !t.Before(c.since) }

// refuse adds a use of a key from an address that would be refused.
func (c *comparison) refuse(id string, use store.AddrUse) {
	a := c.addrs[use.Addr]
	if a == nil {
		if len(c.addrs) == maxPreviewAddrs {
			return
		}
		a = &RefusedAddr{Addr: use.Addr}
		c.addrs[use.Addr] = a
	}
	a.Keys++
	if len(a.KeyIDs) < maxPreviewKeys {
		a.KeyIDs = append(a.KeyIDs, id)
	}
	if use.Last.After(a.LastUsed) {
		a.LastUsed = use.Last
	}
}

// result returns what was collected.
func (c *comparison) result(usesKnown bool) Preview {
	p := c.preview
	p.Users = len(c.users)
	p.RefusedAddrs = len(c.addrs)
	if !usesKnown {
		p.Recent, p.RefusedAddrs = -1, -1
	}
	for _, a := range c.addrs {
		p.Refused = append(p.Refused, *a)
	}
	slices.SortFunc(p.Refused, func(a, b RefusedAddr) int {
		return cmp.Or(b.LastUsed.Compare(a.LastUsed), a.Addr.Compare(b.Addr))
	})
	p.Refused = p.Refused[:min(len(p.Refused), maxPreview)]
	return p
}
