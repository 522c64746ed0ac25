package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"net/url"
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
func (ps people) authenticator(ctx context.Context, mgr *keys.Manager, issuer issuerOptions) (*oidcauth.Authenticator, error) {
	jwksURL, err := issuer.keys(ctx)
	if err != nil {
		return nil, err
	}
	uses, err := readTokenUses(issuer.tokenUse)
	if err != nil {
		return nil, err
	}
	return oidcauth.New(issuer.url, []string{issuer.clientID}, &oidcauth.Options{
		HTTPClient: issuer.client,
		JWKSURL:    jwksURL,
		KeysFailed: func(err error) { log.Print("issuer: ", err) },
		TokenUses:  uses,
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

// hello prints how to try the service: by a key, and as each of the people. Where
// out is not for people only, it has no token of a key.
func (d *devIssuer) hello(out io.Writer, base string, b *bootstrap, tokens map[string]string) {
	fmt.Fprintf(out, "\nDevelopment mode: anybody can be anybody.\n\n")
	email, token := "EMAIL", "KEY" // to be filled in
	for _, o := range b.Orgs {
		for _, u := range o.Users {
			for _, k := range u.Keys {
				if made := tokens[k.Ref]; made != "" && k.works(time.Now()) && token == "KEY" {
					email, token = cmp.Or(u.Email, u.ID), made
				}
			}
		}
	}
	if token == "KEY" {
		fmt.Fprintf(out, "# with a key, for KEY, and the e-mail of its user\n")
	} else {
		fmt.Fprintf(out, "# with a key of %s\n", email)
	}
	bearer := "-H " + shellWord("Authorization: Bearer "+token)
	pair := "-H " + shellWord("x-api-user: "+email) + " -H " + shellWord("x-api-token: "+token)
	fmt.Fprintf(out, "curl -i %s %s/v1/ping\n", bearer, base)
	fmt.Fprintf(out, "curl -i %s %s/v1/ping\n", pair, base)
	fmt.Fprintf(out, "curl -s %s %s/v1/usage\n", bearer, base)
	fmt.Fprintf(out, "curl -s %s %s%s/corps\n", pair, base, corpBase)
	for _, o := range b.Orgs {
		for _, u := range o.Users {
			fmt.Fprintf(out, "\n# as %s, %s of %s, with a JWT for an hour\n", u.ID, u.Role, o.Name)
			bearer := "-H " + shellWord("Authorization: Bearer "+d.token(person{u.ID, o.Name, u.Email, u.Role, u.Tier}))
			fmt.Fprintf(out, "curl -s %s -H 'Content-Type: application/json' -d '{\"name\":\"CI\"}' %s/v1/api-keys\n", bearer, base)
			fmt.Fprintf(out, "curl -s %s %s/v1/api-keys\n", bearer, base)
			if u.Role == roleOwner {
				fmt.Fprintf(out, "curl -s %s %s/v1/org/api-keys\n", bearer, base)
				fmt.Fprintf(out, "curl -i %s %s/v1/org/token-settings\n", bearer, base)
			}
		}
	}
	for _, o := range b.Orgs {
		for _, u := range o.Users[:min(1, len(o.Users))] {
			fmt.Fprintf(out, "\n# a new JWT when one has expired\ncurl -s %s\n", shellWord(base+"/dev/token/"+url.PathEscape(u.ID)))
		}
	}
	fmt.Fprintf(out, "\nThe console, as any of them, in a browser: %s/\n\n", base)
}

// shellWord quotes text for a shell (POSIX 2.2.2): in single quotes, everything but
// the quote itself means itself.
func shellWord(text string) string {
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}

// demoBootstrap is what -dev starts with where there is no -bootstrap. Times count
// back from now.
func demoBootstrap(now time.Time) *bootstrap {
	days := func(n int) time.Time { return now.UTC().Truncate(time.Second).AddDate(0, 0, n) }
	return &bootstrap{Orgs: []bootstrapOrg{{Name: "demo", Users: []bootstrapUser{
		{ID: "demo-owner", Email: "owner@demo.example", Role: roleOwner, Tier: "Enterprise", Keys: []bootstrapKey{
			{Ref: "demo-siem", Name: "SIEM export", CreatedAt: days(-200), DailyLimit: new(int64(1000))},
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

// loopback reports whether a host, with a port or without, is this machine.
func loopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		host = strings.TrimSuffix(strings.TrimPrefix(addr, "["), "]")
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback() || strings.EqualFold(host, "localhost")
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
