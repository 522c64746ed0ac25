package keys

import (
	"slices"
	"time"

	"github.com/keystile/keystile/policy"
	"github.com/keystile/keystile/store"
)

// A State is the state of a key as people are shown it (S48, D12). States are
// stable, and are sent to clients as they are.
type State string

// The states. If several apply, the first of these is shown.
const (
	Revoked         State = "revoked"           // for good
	DisabledByOwner State = "disabled_by_owner" // until what disables it is lifted
	Expired         State = "expired"           // by its own end or by the organization's period
	Active          State = "active"
)

// A Status is what [StatusOf] finds.
type Status struct {
	State State

	// Reasons are all that the key is refused for, in the order of S72: the first
	// is what a request with the key is told. It is empty exactly if State is
	// [Active].
	Reasons []policy.Reason

	// ExpiresAt is when the key expires or has expired: by its own end or by the
	// organization's period, whichever is earlier (D23): see
	// [policy.Principal.ExpiresAt]. Zero is never.
	ExpiresAt time.Time
}

// StatusOf returns the status of a key at a time, under the settings of its
// organization. It asks the policies that decide about requests, so the two cannot
// differ; address, scopes and quota, which concern one request and not the key,
// are left out (S45).
//
// A key of a suspended user (D17) has the state [DisabledByOwner], although it was
// the host that suspended the user: of the four states of D12 it is the one of
// keys that are refused, are kept, and come back. The reason [policy.InvalidToken]
// tells it from keys that an owner disabled. A revoked key has that reason too.
//
// A key in the grace period of its rotation is not revoked before its RevokedAt.
func StatusOf(r *store.Record, s *policy.Settings, now time.Time) Status {
	st := Status{State: Active, ExpiresAt: r.Principal.ExpiresAt(s)}
	isRevoked, isSuspended := r.Key.RevokedBy(now), !r.User.SuspendedAt.IsZero()
	if isRevoked || isSuspended {
		st.Reasons = append(st.Reasons, policy.InvalidToken)
	}
	req := policy.Request{Principal: r.Principal, Settings: s, Time: now}
	for _, p := range []policy.Policy{policy.Enabled(), policy.PermittedUsers(), policy.Expiry()} {
		if d := p.Evaluate(req); !d.Allow {
			st.Reasons = append(st.Reasons, d.Reason)
		}
	}
	switch {
	case isRevoked:
		st.State = Revoked
	case len(st.Reasons) == 0:
		st.State = Active
	case slices.Equal(st.Reasons, []policy.Reason{policy.Expired}):
		st.State = Expired
	default:
		st.State = DisabledByOwner
	}
	return st
}
