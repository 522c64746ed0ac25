package keys

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/keystile/keystile/policy"
	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/store/audit"
)

// An act is one call of a method that writes, as the audit trail has it. Every act
// ends with one outcome; with [Options.AuditRequired] its first write is preceded
// by an intent.
type act struct {
	m       *Manager
	event   audit.Event
	writing bool // intend has let it pass: from here on something may be written
}

// begin begins an act. What it is done to is as far known as the caller named it,
// so keyID can be anything, even a token.
func (m *Manager) begin(action string, a Actor, org, user, keyID string) *act {
	if m.audit == nil {
		return &act{m: m}
	}
	return &act{m: m, event: audit.Event{
		ID:     rand.Text(),
		Action: action,
		Actor: audit.Actor{
			ID: a.ID, Role: a.Role.String(), Credential: a.Credential, Addr: a.Addr, UserAgent: a.UserAgent,
		},
		Org:   org,
		User:  user,
		KeyID: keyID[:min(len(keyID), m.idLen)],
	}}
}

// Refused tells the trail of an act that was refused before the Manager was asked
// for it, such as by the API in front of it, of somebody who is no owner: of
// whatever action, by whom, to which key, user or organization, as far as that is
// known, and why. What err stands for is the reason in the trail, as with an act
// that the Manager refuses: [ErrForbidden], [ErrSuspended] and [store.ErrConflict],
// for example, or [ErrUnknownUser] and [ErrCrossOrigin], which the Manager itself
// never finds. Without [Options.Audit] it does nothing.
//
// Acts that the Manager refuses are in the trail without it.
func (m *Manager) Refused(ctx context.Context, action string, actor Actor, ref Ref, err error) {
	m.begin(action, actor, ref.Org, ref.User, ref.ID).end(ctx, err)
}

// found says which key it is that the act is done to.
func (a *act) found(k *store.Key) { a.event.User, a.event.KeyID = k.User, k.ID }

// intend is called before every write of an act, with the changes that it makes.
// Its error, an [ErrAudit], forbids the write. Only the first intent of an act is
// written: where it had to start over, the outcome has the changes that it made.
func (a *act) intend(ctx context.Context, changes []audit.Change) error {
	a.event.Changes = changes
	if a.m.auditRequired && !a.writing {
		e := a.event
		e.Phase = audit.Intent
		if err := a.m.record(ctx, e); err != nil {
			// The text of err only: whatever it wraps is no answer of the store.
			return fmt.Errorf("%w: %v", ErrAudit, err)
		}
	}
	a.writing = true
	return nil
}

// end writes the outcome. The act is over, so an outcome that cannot be written
// changes nothing but what [Options.AuditFailed] is told; and a caller who has
// gone away by now does not keep it from being written.
func (a *act) end(ctx context.Context, err error) {
	e := a.event
	e.Phase, e.Err = audit.Outcome, err
	e.Outcome, e.Reason = a.outcome(err)
	_ = a.m.record(context.WithoutCancel(ctx), e)
}

// mask cuts whatever looks like a whole token down to its public prefix, and JWTs to
// nothing: people put credentials where names and IDs belong, and the trail must not
// keep them (S16).
func (m *Manager) mask(e *audit.Event) {
	cut := func(texts ...*string) {
		for _, text := range texts {
			*text = m.tokens.ReplaceAllString(audit.CutJWTs(*text), "$1…")
		}
	}
	cut(&e.Org, &e.User, &e.Actor.ID, &e.Actor.UserAgent)
	e.Changes = slices.Clone(e.Changes)
	for i := range e.Changes {
		cut(&e.Changes[i].Before, &e.Changes[i].After)
	}
}

// record writes e, if there is a trail, and reports what goes wrong.
func (m *Manager) record(ctx context.Context, e audit.Event) error {
	if m.audit == nil {
		return nil
	}
	e.Time = m.now()
	m.mask(&e)
	err := m.audit.Write(ctx, e)
	if err != nil && m.auditFailed != nil {
		m.auditFailed(err)
	}
	return err
}

// outcome returns what the trail calls the outcome of an act that ended with err,
// and why. The codes are stable.
func (a *act) outcome(err error) (outcome, reason string) {
	_, badField := errors.AsType[*FieldError](err)
	_, badSettings := errors.AsType[*policy.FieldError](err)
	switch {
	case err == nil:
		return audit.Success, ""
	case badField, badSettings:
		return audit.Failure, "validation_error"
	case errors.Is(err, ErrAudit):
		return audit.Failure, "audit_unavailable"
	case errors.Is(err, ErrForbidden):
		return audit.Failure, "forbidden"
	case errors.Is(err, ErrUnknownUser):
		return audit.Failure, "user_unknown"
	case errors.Is(err, ErrCrossOrigin):
		return audit.Failure, "cross_origin"
	case errors.Is(err, ErrNotPermitted):
		return audit.Failure, string(policy.UserNotPermitted)
	case errors.Is(err, ErrTier):
		return audit.Failure, string(policy.TierNotAllowed)
	case errors.Is(err, ErrSuspended):
		return audit.Failure, "user_suspended"
	case errors.Is(err, ErrNotActive):
		return audit.Failure, "not_active"
	case errors.Is(err, store.ErrLimit):
		return audit.Failure, "limit_reached"
	case errors.Is(err, store.ErrNotFound):
		return audit.Failure, "not_found"
	case errors.Is(err, store.ErrConflict), errors.Is(err, store.ErrExists):
		return audit.Failure, "conflict"
	case a.writing:
		return audit.Unknown, string(policy.StoreUnavailable)
	}
	return audit.Failure, string(policy.StoreUnavailable) // it had only read
}

// changes collects those fields that differ.
type changes []audit.Change

func (cs *changes) text(field, before, after string) {
	if before != after {
		*cs = append(*cs, audit.Change{Field: field, Before: before, After: after})
	}
}

func (cs *changes) number(field string, before, after int64) {
	cs.text(field, strconv.FormatInt(before, 10), strconv.FormatInt(after, 10))
}

func (cs *changes) flag(field string, before, after bool) {
	cs.text(field, strconv.FormatBool(before), strconv.FormatBool(after))
}

func (cs *changes) time(field string, before, after time.Time) {
	cs.text(field, formatTime(before), formatTime(after))
}

// formatTime returns t in the form of [audit.Change].
func formatTime(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339Nano)
}

// keyChanges returns what differs between two states of a key; for a new key, from
// the zero one.
func keyChanges(before, after *store.Key) (cs changes) {
	cs.text("name", before.Name, after.Name)
	cs.text("scopes", strings.Join(before.Scopes, " "), strings.Join(after.Scopes, " "))
	cs.number("daily_limit", before.DailyLimit, after.DailyLimit)
	cs.time("created_at", before.CreatedAt, after.CreatedAt)
	cs.time("not_after", before.NotAfter, after.NotAfter)
	cs.time("disabled_at", before.DisabledAt, after.DisabledAt)
	cs.time("revoked_at", before.RevokedAt, after.RevokedAt)
	return cs
}

// userChanges does the same for a user; a nil before is a new one.
func userChanges(before, after *store.User) (cs changes) {
	if before == nil {
		before = new(store.User)
	}
	cs.text("email", before.Email, after.Email)
	cs.text("tier", before.Tier, after.Tier)
	cs.flag("owner", before.Owner, after.Owner)
	cs.flag("permitted", before.Permitted, after.Permitted)
	cs.time("suspended_at", before.SuspendedAt, after.SuspendedAt)
	return cs
}

// settingsChanges does the same for settings.
func settingsChanges(before, after *policy.Settings) (cs changes) {
	cs.flag("restrict_users", before.RestrictUsers, after.RestrictUsers)
	cs.number("max_age", int64(before.MaxAge/time.Second), int64(after.MaxAge/time.Second))
	cs.text("allowed_ips", before.AllowedIPs.String(), after.AllowedIPs.String())
	return cs
}
