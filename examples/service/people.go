package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/keystile/keystile/middleware"
	"github.com/keystile/keystile/middleware/oidcauth"
	"github.com/keystile/keystile/middleware/oidcauth/oidctest"
	"github.com/keystile/keystile/store/keys"
)

// The roles of the corp-shaped API. keystile itself knows owners and others.
const (
	roleOwner    = "owner"
	roleAdmin    = "admin"
	roleUser     = "user"
	roleObserver = "observer"
)

// A person is somebody of the bootstrap file.
type person struct {
	id, org, email, role, tier string
}

// people are those of the bootstrap file, by ID: the sub of their JWTs.
type people map[string]person

func (b *bootstrap) people() people {
	ps := make(people)
	for _, o := range b.Orgs {
		for _, u := range o.Users {
			ps[u.ID] = person{u.ID, o.Name, u.Email, u.Role, u.Tier}
		}
	}
	return ps
}

// authenticator lets in people with JWTs of an issuer. Organization and role are
// those of the bootstrap file; whoever is not in it belongs to the organization
// of the team claim, or to one of their own, as a plain user.
func (ps people) authenticator(mgr *keys.Manager, issuer, clientID string, client *http.Client, failed func(error)) (*oidcauth.Authenticator, error) {
	return oidcauth.New(issuer, []string{clientID}, &oidcauth.Options{
		HTTPClient: client,
		KeysFailed: failed,
		Users:      mgr,
		Map: func(_ context.Context, claims map[string]any, id oidcauth.Identity) (oidcauth.Identity, error) {
			sub, _ := claims["sub"].(string)
			p, known := ps[sub]
			if known {
				id.Org = p.org
			}
			// Said of everybody, so that nobody stays an owner who was taken out of
			// the file.
			owner := known && p.role == roleOwner
			id.Owner = &owner
			return id, nil
		},
	})
}

// devIssuer is an issuer for development: it says who anybody is to whoever asks.
type devIssuer struct {
	*oidctest.Issuer
	url, clientID string
}

const devPath = "/dev/issuer"

func newDevIssuer(base string) *devIssuer {
	d := &devIssuer{url: base + devPath, clientID: "dev-client"}
	d.Issuer = oidctest.New(d.url, d.clientID, nil)
	return d
}

// token returns an access token of a person.
func (d *devIssuer) token(p person) string {
	claims := map[string]any{"email": p.email, "email_verified": true}
	if p.tier != "" {
		claims["custom:tier"] = p.tier
	}
	return d.AccessToken(p.id, claims)
}

// serveToken answers GET /dev/token/{user} with an access token.
func (d *devIssuer) serveToken(ps people) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p, ok := ps[r.PathValue("user")]
		if !ok {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("Cache-Control", "no-store")
		_, _ = io.WriteString(w, d.token(p))
	})
}

// hello prints how to try the service as each of the demo people.
func (d *devIssuer) hello(out io.Writer, base string, b *bootstrap) {
	fmt.Fprintf(out, "\nDevelopment mode: anybody can be anybody. People, each with a token for an hour:\n")
	for _, o := range b.Orgs {
		for _, u := range o.Users {
			p := person{u.ID, o.Name, u.Email, u.Role, u.Tier}
			fmt.Fprintf(out, "\n# %s, %s of %s\n", u.ID, u.Role, o.Name)
			token := d.token(p)
			if u.Role == roleOwner {
				fmt.Fprintf(out, "curl -s -H 'Authorization: Bearer %s' %s/v1/org/api-keys\n", token, base)
			}
			fmt.Fprintf(out, "curl -s -H 'Authorization: Bearer %s' -H 'Content-Type: application/json' -d '{\"name\":\"CI\"}' %s/v1/api-keys\n", token, base)
		}
	}
	fmt.Fprintf(out, "\n# a new token when it has expired\ncurl -s %s/dev/token/USER\n", base)
	fmt.Fprintf(out, "\nThe console, as any of them, in a browser: %s/\n\n", base)
}

// demoBootstrap is what -dev starts with where there is no -bootstrap. Times count
// back from now.
func demoBootstrap(now time.Time) *bootstrap {
	days := func(n int) time.Time { return now.UTC().Truncate(time.Second).AddDate(0, 0, n) }
	return &bootstrap{Orgs: []bootstrapOrg{{Name: "demo", Users: []bootstrapUser{
		{ID: "demo-owner", Email: "owner@demo.example", Role: roleOwner, Tier: "Enterprise", Keys: []bootstrapKey{
			{Ref: "demo-siem", Name: "SIEM export", CreatedAt: days(-200), DailyLimit: 1000},
			{Ref: "demo-reports", Name: "Monthly reports", CreatedAt: days(-45), ExpiresAt: days(45)},
		}},
		{ID: "demo-admin", Email: "admin@demo.example", Role: roleAdmin, Tier: "Team", Keys: []bootstrapKey{
			{Ref: "demo-ci", Name: "CI pipeline", CreatedAt: days(-20)},
			{Ref: "demo-trial", Name: "Trial of the new dashboard", CreatedAt: days(-100), ExpiresAt: days(-9)},
			{Ref: "demo-laptop", Name: "Old laptop", CreatedAt: days(-300), Disabled: true},
		}},
		{ID: "demo-user", Email: "user@demo.example", Role: roleUser, Tier: "Pro"},
		{ID: "demo-free", Email: "free@demo.example", Role: roleUser, Tier: "Free"},
	}}}}
}

// loopback reports whether an address to serve on is reached from this machine
// only.
func loopback(addr string) bool {
	if ap, err := netip.ParseAddrPort(addr); err == nil {
		return ap.Addr().IsLoopback()
	}
	host, _, _ := strings.Cut(addr, ":")
	return host == "localhost"
}

// addressSource returns where the client's address comes from.
func addressSource(proxies, header string) (middleware.AddrSource, error) {
	if (proxies == "") != (header == "") {
		return nil, fmt.Errorf("-trusted-proxies and -client-ip-header need each other")
	}
	if proxies == "" {
		return middleware.PeerIP, nil
	}
	trusted, err := middleware.ParseTrustedProxies(strings.ReplaceAll(proxies, ",", "\n"))
	if err != nil {
		return nil, fmt.Errorf("-trusted-proxies: %w", err)
	}
	switch http.CanonicalHeaderKey(header) {
	case "X-Forwarded-For":
		return middleware.ForwardedFor(trusted), nil
	case "Forwarded":
		return middleware.Forwarded(trusted), nil
	}
	for _, c := range header {
		if !strings.ContainsRune("-abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789", c) {
			return nil, fmt.Errorf("-client-ip-header is not the name of a header")
		}
	}
	return middleware.HeaderIP(header, trusted), nil
}
