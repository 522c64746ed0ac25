package keys

import (
	"net/netip"
	"strconv"

	"github.com/keystile/keystile/policy"
)

// An Actor is who asks for an act. Whether this Actor may ask for it about this
// key or user is the caller's to decide. The [Manager] uses the Actor for what
// binds plain users and not owners: the limit of [Options.MaxDailyLimit] (D7),
// and the acts that are an owner's.
//
// The zero Actor is a plain user.
type Actor struct {
	ID   string // who it is: a user's ID, or the name of a program
	Role Role

	// What follows is for the audit trail alone ([Options.Audit]), like ID.
	Credential policy.Credential // how the Actor was authenticated; 0: not by a request
	Addr       netip.Addr        // the client's address
	UserAgent  string            // what the client calls itself
}

// A Role is what an [Actor] is to the organization. The zero Role is the most
// restricted one, and an unknown Role is as restricted.
type Role uint8

// The roles.
const (
	// PlainUser acts on keys of its own.
	PlainUser Role = iota

	// Owner may manage the organization: it sets settings and grants, disables
	// keys, and is not bound by [Options.MaxDailyLimit]. The restriction by user
	// binds owners like everybody (S29).
	Owner

	// Operator runs the service, such as the host program itself: it may do what an
	// Owner may, and is bound neither by tiers nor by the restriction when it makes
	// a key for somebody. The use of that key is bound by the restriction all the
	// same.
	Operator
)

// String returns "user", "owner" or "operator", and for others "role(n)".
func (r Role) String() string {
	switch r {
	case PlainUser:
		return "user"
	case Owner:
		return "owner"
	case Operator:
		return "operator"
	}
	return "role(" + strconv.Itoa(int(r)) + ")"
}

// manages reports whether r may do what only owners may.
func (r Role) manages() bool { return r == Owner || r == Operator }
