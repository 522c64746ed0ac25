package policy

import (
	"net/netip"
	"strconv"
	"time"
)

// A Credential is the kind of credential that a caller presented. The zero
// Credential is none; every rule of this package refuses it, and any other that
// is not listed here.
type Credential uint8

// The kinds of credential.
const (
	APIKey  Credential = iota + 1 // an API key, in either header form
	JWT                           // a signed token of an identity provider
	Session                       // a session of the host program, such as a cookie
)

// String returns "api_key", "jwt" or "session", and for others "credential(n)".
func (c Credential) String() string {
	switch c {
	case APIKey:
		return "api_key"
	case JWT:
		return "jwt"
	case Session:
		return "session"
	}
	return "credential(" + strconv.Itoa(int(c)) + ")"
}

// A Principal is an authenticated caller. It is shared between requests and
// must not be changed.
type Principal struct {
	Credential Credential

	Org  string // the organization whose Settings apply
	User string // the immutable id of the user, within Org
	Team string // from the identity provider, for the host's use

	Owner     bool // may manage the organization; exempt from nothing here (S29)
	Permitted bool // the user's grant, which counts while Settings.RestrictUsers
	Disabled  bool // the key, by an owner; means nothing for other credentials

	KeyID string // the public prefix of the key; empty unless Credential is APIKey
	Quota string // what a limiter counts: the key and those it was rotated from or to; empty: KeyID

	Scopes []string // see [Scope]
	Tier   string   // see [Tier]

	IssuedAt   time.Time // creation of the key: what Settings.MaxAge counts from
	NotAfter   time.Time // the credential's own end, of any kind; zero: none
	DailyLimit int64     // requests a day; 0: the limiter's default, -1: unlimited
}

// A Request is all that a policy may look at. It is passed by value, so that a
// decision allocates nothing.
type Request struct {
	Principal *Principal // nil refuses
	Settings  *Settings  // of Principal.Org; nil refuses API keys
	Addr      netip.Addr // of the client; the zero Addr is unknown and fails every list
	Time      time.Time  // the zero Time is unknown and fails every expiry
}

// A Decision is the answer of a policy. The zero Decision refuses.
type Decision struct {
	Allow  bool
	Reason Reason // why not; empty if Allow
}

// A Policy decides whether a request may proceed. Evaluate is pure: it does no
// I/O, changes nothing, reads no clock, and is safe for concurrent use.
//
// A policy that does not concern a caller allows. There is no way to turn a
// refusal around: policies only take away.
type Policy interface {
	Evaluate(r Request) Decision
}

// Func makes a function a [Policy]. A nil Func refuses. The function must be
// pure, as [Policy] says, and look after a nil Principal by itself.
type Func func(Request) Decision

// Evaluate calls f. A nil f refuses, with no reason.
func (f Func) Evaluate(r Request) Decision {
	if f == nil {
		return Decision{}
	}
	return f(r)
}

// All allows what every one of the policies allows; the first refusal answers,
// and those after it are not asked. A nil policy among them refuses, with no
// reason. All of none allows: nothing is required.
func All(policies ...Policy) Policy { return all(clone(policies)) }

type all []Policy

func (ps all) Evaluate(r Request) Decision {
	for _, p := range ps {
		if d := p.Evaluate(r); !d.Allow {
			return d
		}
	}
	return allowed
}

// Any allows what at least one of the policies allows; otherwise the first
// refusal answers. A nil policy among them refuses, with no reason. Any of none
// refuses, with no reason.
func Any(policies ...Policy) Policy { return anyOf(clone(policies)) }

type anyOf []Policy

func (ps anyOf) Evaluate(r Request) Decision {
	var first Decision
	for i, p := range ps {
		d := p.Evaluate(r)
		if d.Allow {
			return allowed
		}
		if i == 0 {
			first = d
		}
	}
	return first
}

// clone returns a copy of policies, with a nil Func in place of every nil.
func clone(policies []Policy) []Policy {
	ps := make([]Policy, len(policies))
	for i, p := range policies {
		if p == nil {
			p = Func(nil)
		}
		ps[i] = p
	}
	return ps
}
