package console

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/keystile/keystile/middleware"
	"github.com/keystile/keystile/policy"
)

// A visit is a request for a page.
type visit struct {
	*console
	w       http.ResponseWriter
	r       *http.Request
	account *account // who looks; nil if that is not known
}

// page returns the handler of a page, which people see who are signed in.
func (c *console) page(show func(*visit) error) http.Handler {
	return c.read(func(v *visit) {
		err := v.signedIn()
		if err == nil {
			err = v.get("/v1/me", nil, &v.account)
		}
		if err == nil {
			err = show(v)
		}
		if err != nil {
			v.fail(err)
		}
	})
}

// signedIn returns nil if the request comes from a person. Which kinds of credential
// those are is asked as such, so that a new kind is refused (ASVS 5.0, 7.2.2; D25).
func (v *visit) signedIn() error {
	p, err := v.auth.Authenticate(v.r)
	switch {
	case errors.Is(err, middleware.ErrNoCredential), errors.Is(err, middleware.ErrInvalidCredential):
		return &failure{Status: http.StatusUnauthorized, Message: "You are not signed in."}
	case err != nil:
		return fmt.Errorf("console: authenticate: %w", err)
	case p.Credential != policy.JWT && p.Credential != policy.Session:
		return &failure{Status: http.StatusForbidden, Message: "An API key signs nobody in. Sign in as a person."}
	}
	return nil
}

// A failure is an error that has a page: what the API refuses, and what the console
// does.
type failure struct {
	Status     int
	Message    string
	retryAfter string
}

// Error returns the message, which is for people.
func (f *failure) Error() string { return f.Message }

// fail shows the page of an error. What is not a failure is told to the host.
func (v *visit) fail(err error) {
	f, is := errors.AsType[*failure](err)
	if !is {
		f = &failure{Status: http.StatusServiceUnavailable, Message: "The page cannot be shown now. Try again.", retryAfter: "1"}
		if v.opts.Failed != nil {
			v.opts.Failed(v.r, err)
		}
	}
	v.problem(f)
}

// problem shows the page of a failure.
func (v *visit) problem(f *failure) {
	switch {
	case f.Status == http.StatusUnauthorized:
		v.w.Header().Set("WWW-Authenticate", `Bearer realm="console"`) // RFC 9110 15.5.2
	case f.retryAfter != "":
		v.w.Header().Set("Retry-After", f.retryAfter)
	}
	v.render(f.Status, "problem", f.title(), "", f)
}

// unknown answers for an address at which there is nothing.
func (v *visit) unknown() {
	v.problem(&failure{Status: http.StatusNotFound, Message: "There is nothing at this address."})
}

func (f *failure) title() string {
	switch f.Status {
	case http.StatusUnauthorized:
		return "Sign in"
	case http.StatusForbidden:
		return "Not allowed"
	case http.StatusNotFound:
		return "Not found"
	case http.StatusServiceUnavailable:
		return "Not available now"
	}
	return http.StatusText(f.Status)
}

// get asks the API for what is at a path, as the person who looks at the page, and
// decodes the data of the answer.
func (v *visit) get(path string, query url.Values, data any) error {
	_, err := v.getWithHeader(path, query, data)
	return err
}

// getWithHeader is get and returns the header of the answer too.
func (v *visit) getWithHeader(path string, query url.Values, data any) (http.Header, error) {
	a := &recorder{header: http.Header{}, status: http.StatusOK}
	v.api.ServeHTTP(a, v.request(path, query))
	var envelope struct {
		Message string          // of a refusal
		Data    json.RawMessage // of a success
	}
	err := json.Unmarshal(a.body.Bytes(), &envelope)
	switch {
	case a.status != http.StatusOK && a.status < 400:
		return nil, fmt.Errorf("console: the API answers GET %s with status %d", path, a.status)
	case a.status >= 400:
		// The status says enough if the host has written the body in its own way.
		f := &failure{Status: a.status, Message: envelope.Message, retryAfter: a.header.Get("Retry-After")}
		if f.Message == "" {
			f.Message = "The service answers: " + http.StatusText(a.status) + "."
		}
		return nil, f
	case err == nil && !bytes.HasPrefix(envelope.Data, []byte("{")):
		err = errors.New("without data")
	case err == nil:
		err = json.Unmarshal(envelope.Data, data)
	}
	if err != nil {
		return nil, fmt.Errorf("console: the API answers GET %s: %w", path, err)
	}
	return a.header, nil
}

// request returns the request for what the API has at a path, in the name of whoever
// looks at the page: with the same credentials, context, address and connection, and
// without what concerns this page alone.
func (v *visit) request(path string, query url.Values) *http.Request {
	r := v.r.Clone(v.r.Context())
	r.Method = http.MethodGet
	r.URL = &url.URL{Path: path, RawQuery: query.Encode()}
	r.RequestURI = r.URL.RequestURI()
	r.Body, r.ContentLength, r.TransferEncoding = http.NoBody, 0, nil
	for name := range r.Header {
		if strings.HasPrefix(name, "Content-") || strings.HasPrefix(name, "If-") || strings.HasPrefix(name, "Accept") || name == "Range" {
			delete(r.Header, name)
		}
	}
	return r
}

// A recorder takes the answer of the API.
type recorder struct {
	header  http.Header
	status  int
	written bool
	body    bytes.Buffer
}

func (a *recorder) Header() http.Header { return a.header }

func (a *recorder) WriteHeader(status int) {
	if !a.written && status >= http.StatusOK { // others come before the answer
		a.status, a.written = status, true
	}
}

func (a *recorder) Write(b []byte) (int, error) {
	a.written = true
	return a.body.Write(b)
}

// A view is what a page is made of.
type view struct {
	Root    string // the way from the page to the console's own beginning
	Service string // Options.Title
	Title   string // of the page
	Here    string // the path of the page in the navigation
	Account *account
	SignIn  string
	SignOut string
	Body    any // of the page's template
}

// render shows a page.
func (v *visit) render(status int, name, title, here string, body any) {
	var b bytes.Buffer
	err := v.templates[name].ExecuteTemplate(&b, "layout", view{
		Root: root(v.r.URL), Service: v.opts.Title, Title: title, Here: here, Account: v.account,
		SignIn: v.opts.SignInURL, SignOut: v.opts.SignOutURL, Body: body,
	})
	if err != nil { // a mistake in a template
		v.w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		v.w.WriteHeader(http.StatusInternalServerError)
		if v.opts.Failed != nil {
			v.opts.Failed(v.r, fmt.Errorf("console: %w", err))
		}
		return
	}
	v.w.Header().Set("Content-Type", "text/html; charset=utf-8")
	v.w.WriteHeader(status)
	_, _ = v.w.Write(b.Bytes()) // the client is gone: nothing is left to do
}

// show is render of a page that there is.
func (v *visit) show(name, title, here string, body any) error {
	v.render(http.StatusOK, name, title, here, body)
	return nil
}

// root returns the relative address of the console's own beginning, as seen from a
// page of it: one step up for each directory of the page's path, which is all that
// is known of where the console is mounted.
func root(u *url.URL) string {
	if up := strings.Count(u.EscapedPath(), "/") - 1; up > 0 {
		return strings.Repeat("../", up)
	}
	return "./"
}
