package api

import (
	"cmp"
	"net/netip"

	"github.com/keystile/keystile/policy"
	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/store/keys"
)

// An orgKeyView is a row of the owner's table (S47-S50).
type orgKeyView struct {
	keyView
	CreatedBy creatorView   `json:"createdBy"`
	Addresses []addressView `json:"addresses"` // used last first (D24)
	UserAgent *string       `json:"userAgent"` // of the last use; null: unknown
}

type creatorView struct {
	ID    string `json:"id"`
	Email string `json:"email"`
}

type addressView struct {
	Address     string    `json:"address"`
	FirstUsedAt timestamp `json:"firstUsedAt"`
	LastUsedAt  timestamp `json:"lastUsedAt"`
	Count       int64     `json:"count"`
}

func viewRow(r keys.Row) orgKeyView {
	v := orgKeyView{
		keyView:   viewKey(r.Key, r.Status, r.Uses.LastUsed),
		CreatedBy: creatorView{r.User.ID, email(r.User)},
		Addresses: []addressView{},
	}
	for _, a := range r.Uses.Addrs {
		v.Addresses = append(v.Addresses, addressView{viewAddr(a.Addr), timestamp{a.First}, timestamp{a.Last}, a.Count})
	}
	if r.Uses.UserAgent != "" {
		v.UserAgent = &r.Uses.UserAgent
	}
	return v
}

// email returns the e-mail of u, which is the ID where the host has no other (D16).
func email(u *store.User) string { return cmp.Or(u.Email, u.ID) }

func viewAddr(a netip.Addr) string { return a.String() }

// listOrgKeys serves GET /v1/org/api-keys.
func listOrgKeys(c *call) (*answer, error) {
	q := keys.TableQuery{Org: c.user.Org, Name: c.params["name"], Creator: c.params["creator"]}
	var err error
	if q.State, err = readState(c.params); err != nil {
		return nil, err
	}
	if q.Revoked, err = readRevoked(c.params); err != nil {
		return nil, err
	}
	rows, next, err := c.table(q)
	if err != nil {
		return nil, err
	}
	page := struct {
		Keys       []orgKeyView `json:"keys"`
		NextCursor *string      `json:"nextCursor"`
	}{[]orgKeyView{}, next}
	for _, r := range rows {
		page.Keys = append(page.Keys, viewRow(r))
	}
	return ok(page)
}

// table returns the page of q that the parameters limit and cursor ask for, and the
// cursor of the next, nil if there is none.
func (c *call) table(q keys.TableQuery) (rows []keys.Row, next *string, err error) {
	if q.Limit, err = readNumber(c.params, "limit", maxPage); err != nil {
		return nil, nil, err
	}
	if q.After, err = readKeyCursor(c.params); err != nil {
		return nil, nil, err
	}
	rows, after, err := c.mgr.Table(c.r.Context(), q)
	return rows, keyCursor(after), err
}

// readState reads the parameter status; none is every one.
func readState(params map[string]string) (keys.State, error) {
	text, there := params["status"]
	switch s := keys.State(text); s {
	case keys.Active, keys.Expired, keys.DisabledByOwner, keys.Revoked:
		return s, nil
	}
	if there {
		return "", invalidField("status", "must be active, expired, disabled_by_owner or revoked")
	}
	return "", nil
}

// readRevoked reads the parameter revoked.
func readRevoked(params map[string]string) (bool, error) {
	text, there := params["revoked"]
	if there && text != "true" && text != "false" {
		return false, invalidField("revoked", "must be true or false")
	}
	return text == "true", nil
}

// updateOrgKey serves PATCH /v1/org/api-keys/{prefix}: an owner disables any key of
// the organization, enables it, and sets its limit (D7, D12).
func updateOrgKey(c *call) (*answer, error) {
	p := keys.UpdateParams{Actor: c.actor, Ref: c.orgKey()}
	if err := c.body(members{
		"disabled":   boolean(&p.Disabled),
		"dailyLimit": readDailyLimit(&p.DailyLimit),
	}); err != nil {
		return nil, err
	}
	var err error
	switch {
	case p.Disabled == nil && p.DailyLimit == nil:
		return nil, errNothing
	case p.DailyLimit != nil:
		_, err = c.mgr.Update(c.r.Context(), p)
	case *p.Disabled:
		_, err = c.mgr.Disable(c.r.Context(), p.Actor, p.Ref) // for the audit trail
	default:
		_, err = c.mgr.Enable(c.r.Context(), p.Actor, p.Ref)
	}
	if err != nil {
		return nil, err
	}
	row, err := c.mgr.Row(c.r.Context(), p.Ref)
	if err != nil {
		return nil, err
	}
	return ok(viewRow(row))
}

// revokeOrgKey serves DELETE /v1/org/api-keys/{prefix} (S20).
func revokeOrgKey(c *call) (*answer, error) {
	if err := c.mgr.Revoke(c.r.Context(), c.actor, c.orgKey()); err != nil {
		return nil, err
	}
	return done(revoked)
}

// An explanationView is a keys.Explanation in an answer.
type explanationView struct {
	Prefix  string    `json:"prefix"`
	Address *string   `json:"address"` // null: unknown
	Time    timestamp `json:"time"`
	statusView
	Allowed bool          `json:"allowed"`
	Reason  policy.Reason `json:"reason,omitempty"` // of the first rule that refuses
	Rules   []ruleView    `json:"rules"`
	Usage   *usageView    `json:"usage"` // null: not counted, or unknown
}

type ruleView struct {
	Rule    keys.Rule     `json:"rule"`
	Allowed bool          `json:"allowed"`
	Reason  policy.Reason `json:"reason,omitempty"`
}

// explainOrgKey serves GET /v1/org/api-keys/{prefix}/explain. It spends nothing.
func explainOrgKey(c *call) (*answer, error) {
	var addr netip.Addr
	if text, there := c.params["address"]; there {
		var err error
		if addr, err = netip.ParseAddr(text); err != nil || addr.Zone() != "" {
			return nil, invalidField("address", "must be an IP address without a zone")
		}
		addr = addr.Unmap()
	}
	e, err := c.mgr.Explain(c.r.Context(), c.orgKey(), addr)
	if err != nil {
		return nil, err
	}
	if e.Err != nil {
		c.report(e.Err)
	}
	v := explanationView{
		Prefix: e.Key.ID, Time: timestamp{e.Time}, statusView: viewStatus(e.Status),
		Allowed: e.Decision.Allow, Reason: e.Decision.Reason,
	}
	if addr.IsValid() {
		v.Address = new(viewAddr(addr))
	}
	for _, r := range e.Verdicts {
		v.Rules = append(v.Rules, ruleView{r.Rule, r.Decision.Allow, r.Decision.Reason})
	}
	if e.Quota.Name != "" {
		v.Usage = new(viewUsage(e.Quota))
	}
	return ok(v)
}
