package main

import (
	"context"
	"html/template"
	"log"
	"net/http"
	"net/netip"
	"time"

	"github.com/keystile/keystile/middleware"
	"github.com/keystile/keystile/middleware/console"
	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/store/keys"
)

const (
	consolePath = "/console"
	signInPath  = "/dev/sign-in"
	signOutPath = "/dev/sign-out"
)

// mountConsole serves the console for people who are signed in by any of persons:
// by a session, or by a JWT, which a proxy in front of a browser may add.
func (c *config) mountConsole(mux *http.ServeMux, management http.Handler, persons []middleware.Authenticator) error {
	options := &console.Options{
		Failed: func(_ *http.Request, err error) { log.Print("console: ", err) },
	}
	if c.dev {
		options.SignInURL, options.SignOutURL = signInPath, signInPath
	}
	pages, err := console.New(management, middleware.Chain(persons...), options)
	if err != nil {
		return err
	}
	mux.Handle(consolePath+"/", http.StripPrefix(consolePath, pages))
	return nil
}

// mountSignIn serves the page on which somebody picks who to be, in development
// mode. A request from another site signs nobody in or out: a page that signs its
// visitors in as somebody else sees what they then write (login CSRF).
func mountSignIn(mux *http.ServeMux, s *sessions, first *bootstrap) {
	ps, csrf := first.people(), http.NewCrossOriginProtection()
	mux.Handle("GET /{$}", http.RedirectHandler(signInPath, http.StatusFound))
	mux.HandleFunc("GET "+signInPath, func(w http.ResponseWriter, r *http.Request) {
		setPageHeaders(w)
		var user string
		if p, err := s.Authenticate(r); err == nil {
			user = p.User
		}
		_ = signInPage.Execute(w, map[string]any{"Orgs": first.Orgs, "User": user, "Console": consolePath + "/", "SignOut": signOutPath})
	})
	mux.Handle("POST "+signInPath, csrf.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p, ok := ps[r.PostFormValue("user")]
		if !ok {
			http.Error(w, "nobody of that name", http.StatusBadRequest)
			return
		}
		s.start(w, r, p)
		http.Redirect(w, r, consolePath+"/", http.StatusSeeOther)
	})))
	mux.Handle("POST "+signOutPath, csrf.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.end(w, r)
		http.Redirect(w, r, signInPath, http.StatusSeeOther)
	})))
}

func setPageHeaders(w http.ResponseWriter) {
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	// With no-referrer, browsers that do not send Sec-Fetch-Site write "Origin: null"
	// in the page's own forms, as another site's would.
	h.Set("Referrer-Policy", "same-origin")
	h.Set("X-Content-Type-Options", "nosniff")
}

var signInPage = template.Must(template.New("").Parse(`<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Pick a person</title>
<link rel="icon" href="{{.Console}}assets/icon.svg" type="image/svg+xml">
<link rel="stylesheet" href="{{.Console}}assets/console.css">
</head>
<body>
<main class="wide">
<h1>Pick a person</h1>
<p>This is the development mode: anybody can be anybody.</p>
{{with .User}}<form class="card" method="post" action="{{$.SignOut}}">
<p>You are {{.}}. <a href="{{$.Console}}">Go on to the console</a>, or <button>sign out</button></p>
</form>
{{end}}<form method="post">
{{range .Orgs}}<h2>{{.Name}}</h2>
<ul>
{{range .Users}}<li><button name="user" value="{{.ID}}">{{.ID}}</button> {{.Role}}, {{with .Email}}{{.}}, {{end}}{{with .Tier}}tier {{.}}{{else}}no tier{{end}}</li>
{{end}}</ul>
{{end}}</form>
</main>
</body>
</html>
`))

// demoUses records that the keys of the demo organization were used until
// yesterday, so that the console has a chart to show. It is made up, and its
// addresses are those that documentation uses (RFC 5737, RFC 3849). Keys that were
// used before are left alone: a store outlives the service.
func demoUses(ctx context.Context, mgr *keys.Manager, s store.Uses, first *bootstrap, now time.Time) error {
	day := now.UTC().Truncate(24 * time.Hour)
	for _, o := range first.Orgs {
		for _, u := range o.Users {
			for i, k := range u.Keys {
				known, err := findKey(ctx, mgr, o.Name, u.ID, k.Name)
				if err != nil {
					return err
				}
				if known == nil {
					continue // it was deleted, and purged
				}
				seen, err := s.Uses(ctx, o.Name, []string{known.ID})
				if err != nil {
					return err
				}
				if !seen[0].LastUsed.IsZero() {
					continue
				}
				var uses []store.Use
				for ago := store.MaxUseDays - 1; ago > 0; ago-- {
					at := day.AddDate(0, 0, -ago).Add(time.Duration(9+i) * time.Hour)
					if at.Before(known.CreatedAt) || !known.NotAfter.IsZero() && at.After(known.NotAfter) {
						continue
					}
					uses = append(uses, demoUse(known.ID, i, at))
				}
				if err := s.RecordUses(ctx, uses); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// demoUse is the use of the i-th key of somebody on a day: less on weekends, and
// never the same.
func demoUse(id string, i int, at time.Time) store.Use {
	count := int64(40 + 35*i + at.YearDay()*(7+4*i)%31)
	if d := at.Weekday(); d == time.Saturday || d == time.Sunday {
		count /= 5
	}
	addr := netip.AddrFrom4([4]byte{192, 0, 2, byte(10 + i)})
	if at.Day()%7 == 0 {
		addr = netip.MustParseAddr("2001:db8::17")
	}
	return store.Use{KeyID: id, Addr: addr, UserAgent: "demo/1.0", First: at, Last: at.Add(8 * time.Hour), Count: count}
}
