package api

import (
	"net/http"
	"time"

	"github.com/keystile/keystile/policy"
	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/store/keys"
)

// previewSettings serves POST /v1/org/token-settings/preview: what PATCH would do
// with the same body. It does nothing.
func previewSettings(c *call) (*answer, error) {
	// Uses are counted by day, for so many days.
	days, err := readNumber(c.params, "days", store.MaxUseDays)
	if err != nil {
		return nil, err
	}
	var change settingsChange
	if err := c.body(change.members()); err != nil {
		return nil, err
	}
	s, err := c.mgr.Settings(c.r.Context(), c.user.Org)
	if err != nil {
		return nil, err
	}
	proposed := change.apply(s)
	p, err := c.mgr.Preview(c.r.Context(), proposed, time.Duration(days)*24*time.Hour)
	if err != nil {
		return nil, err
	}
	return &answer{status: http.StatusOK, data: c.viewPreview(proposed, p, days)}, nil
}

// A previewView is a keys.Preview in an answer.
type previewView struct {
	Settings settingsView `json:"settings"` // the proposed ones
	Days     int          `json:"days"`

	Keys                int          `json:"keys"`
	ChangedKeys         int          `json:"changedKeys"`
	ChangedUsers        int          `json:"changedUsers"`
	RecentlyUsedChanged *int         `json:"recentlyUsedChangedKeys"` // null: unknown
	Changes             []changeView `json:"changes"`

	RefusedAddresses *int          `json:"refusedAddresses"` // null: unknown
	Addresses        []refusedView `json:"addresses"`
}

type changeView struct {
	Prefix     string     `json:"prefix"`
	Name       string     `json:"name"`
	User       string     `json:"user"`
	From       statusView `json:"from"`
	To         statusView `json:"to"`
	LastUsedAt timestamp  `json:"lastUsedAt"`
}

type statusView struct {
	Status    keys.State      `json:"status"`
	Reasons   []policy.Reason `json:"reasons"`
	ExpiresAt timestamp       `json:"expiresAt"`
}

type refusedView struct {
	Address    string    `json:"address"`
	Keys       int       `json:"keys"`
	Prefixes   []string  `json:"prefixes"`
	LastUsedAt timestamp `json:"lastUsedAt"`
}

func (c *call) viewPreview(proposed *policy.Settings, p keys.Preview, days int) previewView {
	v := previewView{
		Settings: c.viewSettings(proposed), Days: days,
		Keys: p.Keys, ChangedKeys: p.Changed, ChangedUsers: p.Users,
		RecentlyUsedChanged: known(p.Recent), RefusedAddresses: known(p.RefusedAddrs),
		Changes: []changeView{}, Addresses: []refusedView{},
	}
	for _, ch := range p.Changes {
		v.Changes = append(v.Changes, changeView{
			ch.KeyID, ch.Name, ch.User, viewStatus(ch.From), viewStatus(ch.To), timestamp{ch.LastUsed},
		})
	}
	for _, a := range p.Refused {
		v.Addresses = append(v.Addresses, refusedView{viewAddr(a.Addr), a.Keys, list(a.KeyIDs), timestamp{a.LastUsed}})
	}
	return v
}

func viewStatus(s keys.Status) statusView {
	return statusView{s.State, list(s.Reasons), timestamp{s.ExpiresAt}}
}

// known returns n, or nil if it is negative.
func known(n int) *int {
	if n < 0 {
		return nil
	}
	return &n
}
