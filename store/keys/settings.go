package keys

import (
	"context"
	"errors"
	"fmt"

	"github.com/keystile/keystile/policy"
	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/store/audit"
)

// Settings returns the settings of an organization, read from the store: zero
// ones, but for Org, if none were ever written.
func (m *Manager) Settings(ctx context.Context, org string) (*policy.Settings, error) {
	if problem := checkText(org); problem != "" {
		return nil, &FieldError{Field: "Org", Problem: problem}
	}
	s, err := m.store.Settings(ctx, org)
	if err != nil {
		return nil, fmt.Errorf("keys: settings: %w", err)
	}
	return s, nil
}

// UpdateSettings replaces the settings of s.Org, all at once or not at all (S24),
// and returns them with their new version. Change a copy of what
// [Manager.Settings] returned: [store.ErrConflict] if they were written since, when
// s.Version is not the current one, so that no owner undoes unseen what another
// has done. Requests here follow from the return of UpdateSettings on (S46).
//
// Only owners write settings (S22): [ErrForbidden] for other actors. Settings that
// do not pass [policy.Settings.Validate] are refused with its joined errors, each a
// [policy.FieldError].
func (m *Manager) UpdateSettings(ctx context.Context, actor Actor, s *policy.Settings) (*policy.Settings, error) {
	a := m.begin(audit.SettingsUpdate, actor, s.Org, "", "")
	v, err := m.updateSettings(ctx, a, actor, s)
	a.end(ctx, err)
	return v, err
}

func (m *Manager) updateSettings(ctx context.Context, a *act, actor Actor, s *policy.Settings) (*policy.Settings, error) {
	if !actor.Role.manages() {
		return nil, ErrForbidden
	}
	v := *s
	var ps problems
	ps.check("Org", checkOptionalText(v.Org)) // Validate refuses an empty one
	if err := errors.Join(ps.err(), v.Validate()); err != nil {
		return nil, err
	}
	if err := a.intendSettings(ctx, &v); err != nil {
		return nil, err
	}
	if err := m.writeSettings(ctx, &v); err != nil {
		return nil, fmt.Errorf("keys: update settings: %w", err)
	}
	v.Version++
	return &v, nil
}

// intendSettings is intend for settings, of which those in force have to be read
// first. If they have changed since the caller read them, the write will fail.
func (a *act) intendSettings(ctx context.Context, s *policy.Settings) error {
	if a.m.audit == nil {
		return nil
	}
	before, err := a.m.store.Settings(ctx, s.Org)
	if err != nil {
		return fmt.Errorf("keys: update settings: %w", err)
	}
	return a.intend(ctx, settingsChanges(before, s))
}

func (m *Manager) writeSettings(ctx context.Context, s *policy.Settings) error {
	defer m.cache.Invalidate(store.Change{Kind: store.ChangedSettings, Org: s.Org})
	return m.store.UpdateSettings(ctx, s)
}
