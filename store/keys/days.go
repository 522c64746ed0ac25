package keys

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/keystile/keystile/store"
)

// Days returns a key and the number of requests with it on each of the last
// [store.MaxUseDays] days, in UTC, oldest first: the last one is the running day,
// and days without use are among them. What is known of the use of keys is as
// complete as the middleware has written it; without [Options.Uses] nothing is.
//
// The key that a rotated one replaced has days of its own. [store.ErrNotFound] if
// there is no such key or it is revoked.
func (m *Manager) Days(ctx context.Context, ref Ref) (*store.Key, []store.DayUse, error) {
	now := m.now()
	k, err := m.key(ctx, ref, now)
	if err != nil {
		return nil, nil, fmt.Errorf("keys: days: %w", err)
	}
	sums, err := m.summaries(ctx, k.Org, []string{k.ID})
	if err != nil {
		return nil, nil, fmt.Errorf("keys: days: uses: %w", err)
	}
	today := time.Date(now.Year(), now.Month(), now.Day(), 0, 0, 0, 0, time.UTC)
	days := make([]store.DayUse, store.MaxUseDays)
	for i := range days {
		days[i].Day = today.AddDate(0, 0, i-len(days)+1)
		use := slices.IndexFunc(sums[0].Days, func(d store.DayUse) bool { return d.Day.Equal(days[i].Day) })
		if use >= 0 {
			days[i].Count = sums[0].Days[use].Count
		}
	}
	return k, days, nil
}
