package console

import (
	"embed"
	"errors"
	"fmt"
	"html/template"
	"net/http"
	"path"
	"strings"

	"github.com/keystile/keystile/middleware"
)

// Options configure [New]. A nil *Options means the defaults.
type Options struct {
	// Failed is called with the request and the error when the Authenticator fails,
	// and when the API answers what the console does not understand; the page says no
	// more than that. It runs on the path of the request. The error contains no
	// secret. Failures of the API's own are api.Options.Failed's.
	// Defaults to none: such errors are dropped.
	Failed func(r *http.Request, err error)

	// SignInURL is where people sign in: a path of this origin, with or without a
	// query, such as "/login". The page of status 401 links to it.
	// Defaults to none: that page has no link.
	SignInURL string

	// SignOutURL is where people sign out: a path of this origin, which every page
	// links to. What ends a session there should be a POST, since links of other
	// sites can lead to it too.
	// Defaults to none.
	SignOutURL string

	// Title is what the pages call the service whose keys these are.
	// Defaults to "API keys".
	Title string

	// TrustedOrigins are the origins beside this one, as "https://www.example.com",
	// from which something may be changed: needed where browsers reach the console
	// without TLS through a proxy that changes the Host, and nowhere else. The API
	// has to trust them too. See [http.CrossOriginProtection.AddTrustedOrigin].
	// Defaults to none.
	TrustedOrigins []string
}

// New returns the handler of the console: see the package comment. Its own paths
// begin with "/", so it is mounted below a path by [http.StripPrefix], with a
// pattern that ends in a slash. All its links are relative, so it need not know
// where that is.
//
// The handler api is that of package api, as New returns it there: the console hands
// requests to it with paths that begin with /v1. It may be mounted elsewhere as
// well. A request for a page reaches it with the headers, the context and the remote
// address of whoever looks at the page, so that it sees the same person at the same
// address.
//
// Whoever auth finds is a person at the pages. It is asked as by [middleware.Chain]: a
// cookie counts for nothing where a credential came in a header.
//
// The error reports everything that is wrong with the arguments, joined.
func New(api http.Handler, auth middleware.Authenticator, opts *Options) (http.Handler, error) {
	var o Options
	if opts != nil {
		o = *opts
	}
	if o.Title == "" {
		o.Title = "API keys"
	}
	var errs []error
	if api == nil {
		errs = append(errs, errors.New("console: New without an API"))
	}
	if auth == nil {
		errs = append(errs, errors.New("console: New without an Authenticator"))
	}
	for _, link := range []struct{ field, url string }{{"SignInURL", o.SignInURL}, {"SignOutURL", o.SignOutURL}} {
		if link.url != "" && !ownPath(link.url) {
			errs = append(errs, fmt.Errorf("console: Options.%s: is not a path of this origin", link.field))
		}
	}
	crossOrigin := http.NewCrossOriginProtection()
	for _, origin := range o.TrustedOrigins {
		if err := crossOrigin.AddTrustedOrigin(origin); err != nil {
			errs = append(errs, fmt.Errorf("console: Options.TrustedOrigins: %w", err))
		}
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	c := &console{api: api, auth: middleware.Chain(auth), opts: o, templates: map[string]*template.Template{}}
	for _, name := range pageNames {
		t, err := template.New(name).Funcs(funcs).ParseFS(pageFiles, "pages/layout.html", "pages/parts.html", "pages/"+name+".html")
		if err != nil {
			return nil, fmt.Errorf("console: %w", err)
		}
		c.templates[name] = t
	}
	crossOrigin.SetDenyHandler(http.HandlerFunc(c.refuseCrossOrigin))
	c.handler = crossOrigin.Handler(c.routes())
	return c, nil
}

// ownPath reports whether a browser takes s for a path of the origin that it is at:
// it begins with one slash, and neither with a second one nor with what browsers
// take for one, and has nothing that they leave out.
func ownPath(s string) bool {
	if s[0] != '/' || len(s) > 1 && s[1] == '/' {
		return false
	}
	return !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == '\\' || r == 0x7f })
}

// A console is the handler.
type console struct {
	api       http.Handler
	auth      middleware.Authenticator
	opts      Options
	templates map[string]*template.Template // by the names of pageNames
	handler   http.Handler
}

//go:embed pages
var pageFiles embed.FS

//go:embed assets
var assetFiles embed.FS

// pageNames are the templates that make a page, each in a file of its own.
var pageNames = []string{"mine", "key", "all", "orgkey", "settings", "people", "problem"}

// assets are the files that pages load, with their media types.
var assets = map[string]string{
	"console.css": "text/css; charset=utf-8",
	"console.js":  "text/javascript; charset=utf-8",
	"icon.svg":    "image/svg+xml",
}

// routes returns all that is served. What is here has no state, so everything but
// the API is GET.
func (c *console) routes() http.Handler {
	mux := http.NewServeMux()
	for path, page := range map[string]func(*visit) error{
		"/{$}":               (*visit).mine,
		"/keys/{prefix}":     (*visit).key,
		"/org/keys":          (*visit).all,
		"/org/keys/{prefix}": (*visit).orgKey,
		"/org/settings":      (*visit).settings,
		"/org/people":        (*visit).people,
	} {
		mux.Handle(path, c.page(page))
	}
	for name, media := range assets {
		mux.Handle("/assets/"+name, c.read(func(v *visit) {
			body, _ := assetFiles.ReadFile("assets/" + name) // embedded: cannot fail
			v.w.Header().Set("Content-Type", media)
			_, _ = v.w.Write(body)
		}))
	}
	mux.Handle("/api/", http.StripPrefix("/api", c.api))
	mux.Handle("/", c.read((*visit).unknown))
	mux.Handle("/api", c.read((*visit).unknown)) // which ServeMux would redirect
	return mux
}

// ServeHTTP serves one request. A path that is not in its normal form is unknown:
// ServeMux would redirect it to a place without the path that this is mounted at.
func (c *console) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	setHeader(w.Header())
	if p := r.URL.EscapedPath(); !strings.HasPrefix(p, "/") || path.Clean(p) != p {
		(&visit{console: c, w: w, r: r}).unknown()
		return
	}
	c.handler.ServeHTTP(w, r)
}

// setHeader sets what every answer of the console has, those of the API and the
// refusals of other origins included.
func setHeader(h http.Header) {
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", contentSecurityPolicy)
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
}

const contentSecurityPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; " +
	"base-uri 'none'; form-action 'self'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

// refuseCrossOrigin answers what came from another origin. What is meant for the API
// is refused by the API, so that it is in the audit trail: it gets it as a request of
// an origin that nobody trusts, whatever origins the API itself trusts.
func (c *console) refuseCrossOrigin(w http.ResponseWriter, r *http.Request) {
	if strings.HasPrefix(r.URL.Path, "/api/") {
		r = r.Clone(r.Context())
		r.Header.Set("Sec-Fetch-Site", "cross-site")
		r.Header.Del("Origin")
		http.StripPrefix("/api", c.api).ServeHTTP(w, r)
		return
	}
	(&middleware.Refusal{
		Status: http.StatusForbidden, Code: "Forbidden", Reason: "cross_origin", Message: "This request comes from another site.",
	}).Write(w, r)
}

// read returns a handler of GET and HEAD.
func (c *console) read(serve func(*visit)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v := &visit{console: c, w: w, r: r}
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			v.problem(&failure{Status: http.StatusMethodNotAllowed, Message: "This page can only be looked at."})
			return
		}
		serve(v)
	})
}
