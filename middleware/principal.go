package middleware

import (
	"context"
	"net/netip"
	"slices"
	"sync/atomic"

	"github.com/keystile/keystile/policy"
)

// The keys of context values are types of their own, so that nothing outside of
// this package can set or shadow them.
type (
	principalKey struct{}
	admissionKey struct{}
)

// PrincipalFrom returns the caller that a Guard let through with ctx, or that
// [WithPrincipal] put there. It is shared between requests: do not change it.
func PrincipalFrom(ctx context.Context) (*policy.Principal, bool) {
	p, ok := ctx.Value(principalKey{}).(*policy.Principal)
	return p, ok && p != nil
}

// AddrFrom returns the client's address as the Guard that let a request through
// with ctx understood it: what the rules and the Event of that request are about.
// It is the zero Addr if the address is unknown. It returns false if no Guard let
// ctx through; [WithPrincipal] brings no address.
func AddrFrom(ctx context.Context) (netip.Addr, bool) {
	a, ok := ctx.Value(admissionKey{}).(*admission)
	if !ok {
		return netip.Addr{}, false
	}
	return a.addr, true
}

// WithPrincipal returns a context in which [PrincipalFrom] finds p: for tests of
// handlers, and for hosts that authenticate some callers by themselves. No Guard
// trusts it: a Guard believes only its own mark, which nothing else can make.
func WithPrincipal(ctx context.Context, p *policy.Principal) context.Context {
	return context.WithValue(ctx, principalKey{}, p)
}

// An admission is the context of a request that a Guard let through, and the
// Guard's private mark in one: a single allocation, made small on purpose, since
// the context and the copy of the request that carries it are the largest cost
// of a Guard.
type admission struct {
	context.Context
	principal *policy.Principal
	settings  *policy.Settings
	addr      netip.Addr
	guard     *Guard     // whose policies have been evaluated
	outer     *admission // of a Guard of the same family around this one
	progress
}

// The progress of a request through Guards of one family: what is left to do. It
// is atomic because handlers may run in another goroutine than their Guard
// (http.TimeoutHandler). The zero value, after Wrap, is that nothing is left.
type progress struct {
	unspent   atomic.Bool // no unit of quota was taken
	unsettled atomic.Bool // the request was neither noted nor observed
}

// Value implements context.Context.
func (a *admission) Value(key any) any {
	switch key.(type) {
	case principalKey:
		return a.principal
	case admissionKey:
		return a
	}
	return a.Context.Value(key)
}

// admissionFrom returns the mark that a Guard of g's family left in ctx.
func (g *Guard) admissionFrom(ctx context.Context) *admission {
	a, _ := ctx.Value(admissionKey{}).(*admission)
	for a != nil && a.guard.core != g.core {
		a, _ = a.Context.Value(admissionKey{}).(*admission)
	}
	return a
}

// root returns the admission whose progress counts for the whole request: that
// of the outermost Guard of the family.
func (a *admission) root() *admission {
	for a.outer != nil {
		a = a.outer
	}
	return a
}

// evaluated reports whether the policies of layer were evaluated on the way to a.
func (a *admission) evaluated(l *layer) bool {
	for ; a != nil; a = a.outer {
		if slices.Contains(a.guard.layers, l) {
			return true
		}
	}
	return false
}
