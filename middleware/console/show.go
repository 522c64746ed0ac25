package console

import (
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// Sizes of pages of lists.
const (
	ownKeysPage = 20 // each with a chart of its own
	orgKeysPage = 50
	usersPage   = 100
)

// mine shows the keys of whoever looks.
func (v *visit) mine() error {
	body := struct {
		Keys    []ownKey
		Holders []*key // of the places, if there are places to run out of
		Next    string
		First   bool
		Periods []period
	}{First: !v.r.URL.Query().Has("cursor"), Periods: periods(v.account.APITokenMaxAge)}
	var page keyPage
	if err := v.get("/v1/api-keys", v.query(ownKeysPage, "cursor"), &page); err != nil {
		return err
	}
	body.Next = page.NextCursor
	if v.account.Places.Limit >= 0 {
		body.Holders = holders(v.account.Places.Prefixes, page.Keys)
	}
	for i := range page.Keys {
		k, err := v.ownKey(&page.Keys[i], "/v1/api-keys/", smallChart)
		if isStatus(err, http.StatusNotFound) {
			continue // it was revoked meanwhile
		}
		if err != nil {
			return err
		}
		body.Keys = append(body.Keys, k)
	}
	return v.show("mine", "My keys", "", body)
}

// holders returns the keys with those prefixes. Of one that is not in the list, which
// is a page, only the prefix is known: there can be too many to ask for each.
func holders(prefixes []string, ks []key) (held []*key) {
	for _, prefix := range prefixes {
		h := &key{Prefix: prefix}
		if i := slices.IndexFunc(ks, func(k key) bool { return k.Prefix == prefix }); i >= 0 {
			h = &ks[i]
		}
		held = append(held, h)
	}
	return held
}

// An ownKey is a key with its use.
type ownKey struct {
	*key
	Usage *usage
	Chart chart
}

func (v *visit) ownKey(k *key, under string, size chartSize) (ownKey, error) {
	var u keyUsage
	if err := v.get(under+k.Prefix+"/usage", nil, &u); err != nil {
		return ownKey{}, err
	}
	return ownKey{k, u.Usage, newChart(u, size)}, nil
}

// query returns the parameters of the page's own address that a list is asked for
// with, and its size. Empty ones are those of forms that were not filled in.
func (v *visit) query(limit int, known ...string) url.Values {
	q := url.Values{"limit": {number(int64(limit))}}
	for _, name := range known {
		if value := v.r.URL.Query().Get(name); value != "" {
			q.Set(name, value)
		}
	}
	return q
}

// prefix returns the prefix in the address of a page. It is part of the path that
// the API is asked for, so nothing else may be in it.
func (v *visit) prefix() (string, error) {
	p := v.r.PathValue("prefix")
	if strings.Trim(p, "abcdefghijklmnopqrstuvwxyz0123456789_") != "" {
		return "", &failure{Status: http.StatusNotFound, Message: "There is no such API key."}
	}
	return p, nil
}

// key shows one key of whoever looks.
func (v *visit) key() error {
	prefix, err := v.prefix()
	if err != nil {
		return err
	}
	var k key
	if err := v.get("/v1/api-keys/"+prefix, nil, &k); err != nil {
		return err
	}
	body, err := v.ownKey(&k, "/v1/api-keys/", largeChart)
	if err != nil {
		return err
	}
	return v.show("key", k.Name, "", body)
}

// all shows everybody's keys to owners.
func (v *visit) all() error {
	q := v.query(orgKeysPage, "creator", "name", "status", "cursor")
	body := struct {
		keyPage
		Creator, Name, Status string
		Statuses              []string
		First                 bool
	}{
		Creator: q.Get("creator"), Name: q.Get("name"), Status: q.Get("status"), First: !q.Has("cursor"),
		Statuses: []string{"active", "expired", "disabled_by_owner", "revoked"},
	}
	if err := v.get("/v1/org/api-keys", q, &body.keyPage); err != nil {
		return err
	}
	return v.show("all", "All keys", "org/keys", body)
}

// orgKey shows one of them, and why it works or does not. One that is revoked is
// explained, and nothing else is known of it.
func (v *visit) orgKey() error {
	prefix, err := v.prefix()
	if err != nil {
		return err
	}
	body := struct {
		Key         *ownKey // nil: revoked
		Explanation explanation
		Address     string
		Problem     string // with the address
	}{Address: strings.TrimSpace(v.r.URL.Query().Get("address"))}
	path := "/v1/org/api-keys/"
	var k key
	switch err := v.get(path+prefix, nil, &k); {
	case err == nil:
		shown, err := v.ownKey(&k, path, largeChart)
		if err != nil {
			return err
		}
		body.Key = &shown
		// What is asked most is why the last request was let through, or was not.
		if !v.r.URL.Query().Has("address") && len(k.Addresses) > 0 {
			body.Address = k.Addresses[0].Address
		}
	case !isStatus(err, http.StatusNotFound):
		return err
	}
	q := url.Values{}
	if body.Address != "" {
		q.Set("address", body.Address)
	}
	err = v.get(path+prefix+"/explain", q, &body.Explanation)
	if isStatus(err, http.StatusBadRequest) {
		body.Problem = "This is not an IP address."
		err = v.get(path+prefix+"/explain", nil, &body.Explanation)
	}
	if err != nil {
		return err
	}
	title := prefix
	if body.Key != nil {
		title = k.Name
	}
	return v.show("orgkey", title, "org/keys", body)
}

func isStatus(err error, status int) bool {
	f, is := errors.AsType[*failure](err)
	return is && f.Status == status
}

// settings shows the settings of the organization to owners.
func (v *visit) settings() error {
	var body struct {
		settings
		ETag    string
		Age     age
		Presets []preset
		Custom  bool // the period is none of those
		Units   []unit
	}
	h, err := v.getWithHeader("/v1/org/token-settings", nil, &body.settings)
	if err != nil {
		return err
	}
	body.ETag, body.Age, body.Units = h.Get("ETag"), newAge(body.APITokenMaxAge), units
	body.Presets, body.Custom = presets(body.APITokenMaxAge)
	return v.show("settings", "Settings", "org/settings", body)
}

// people shows the users of the organization to owners.
func (v *visit) people() error {
	body := struct {
		userPage
		First bool
	}{First: !v.r.URL.Query().Has("cursor")}
	if err := v.get("/v1/org/users", v.query(usersPage, "cursor"), &body.userPage); err != nil {
		return err
	}
	return v.show("people", "People", "org/people", body)
}
