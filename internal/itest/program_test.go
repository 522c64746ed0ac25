package itest

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/token"
)

// The programs that processes run on a store, whatever its database is, and the
// judgement of what they have done. Their first argument names the database.

// on returns a program that opens a store, which has its tables already, and
// runs another on it.
func on(open func(ctx context.Context, name string) (backend, error), run func(ctx context.Context, s backend) error) program {
	return func(ctx context.Context, args []string) error {
		s, err := open(ctx, args[0])
		if err != nil {
			return err
		}
		if err := s.Validate(ctx); err != nil {
			return err
		}
		return run(ctx, s)
	}
}

// addProgram adds 1 to a count, 150 times at once, and prints each answer.
func addProgram(ctx context.Context, s backend) error {
	if err := ready(); err != nil {
		return err
	}
	errs := make([]error, 150)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() {
			count, ok, err := s.Add(ctx, "family", testDay, 1, 250)
			switch errs[i] = err; {
			case err != nil:
			case ok:
				fmt.Println(count)
			default:
				fmt.Println("refused")
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// requireLimit requires of two addPrograms on one database that a limit of 250
// admitted exactly 250 of their 300 requests (S61, S62, D8).
func requireLimit(t *testing.T, lines []string) {
	t.Helper()
	admitted, refused := make(map[string]int), 0
	for _, line := range lines {
		if line == "refused" {
			refused++
			continue
		}
		admitted[line]++
	}
	require.Len(t, admitted, 250, "each of the admitted was given another count")
	for i := range 250 {
		require.Equal(t, 1, admitted[strconv.Itoa(i+1)], "times that the count %d was given out", i+1)
	}
	require.Equal(t, 50, refused)
}

// insertProgram inserts 25 keys of one user at once and prints each answer.
func insertProgram(ctx context.Context, s backend) error {
	if err := ready(); err != nil {
		return err
	}
	errs := make([]error, 25)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() {
			switch err := s.InsertKey(ctx, testKey("u1", token.Generate()), nil, 5); {
			case err == nil:
				fmt.Println("inserted")
			case errors.Is(err, store.ErrLimit):
				fmt.Println("limit")
			default:
				errs[i] = err
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// requireCap requires of two insertPrograms on one database that a cap of 5 left
// exactly 5 of their 50 keys (S12, S13, F54).
func requireCap(t *testing.T, s backend, lines []string) {
	t.Helper()
	outcomes := make(map[string]int)
	for _, line := range lines {
		outcomes[line]++
	}
	require.Equal(t, map[string]int{"inserted": 5, "limit": 45}, outcomes)
	keys, err := s.Keys(t.Context(), store.Query{Org: "acme", User: "u1"})
	require.NoError(t, err)
	require.Len(t, keys, 5)
}

// What writeProgram does at once, and the limit of what it counts.
const (
	writers    = 2
	writeLimit = 20
)

// writeProgram creates keys, revokes them and counts until it is killed, and
// prints what was acknowledged.
func writeProgram(ctx context.Context, s backend) error {
	failed := make(chan error)
	for range writers {
		go func() { failed <- createAndRevoke(ctx, s) }()
		go func() { failed <- spend(ctx, s, "open", 1<<40) }()
		go func() {
			if err := spend(ctx, s, "limited", writeLimit); err != nil {
				failed <- err
			}
		}()
	}
	return <-failed
}

func createAndRevoke(ctx context.Context, s backend) error {
	for {
		k := testKey("u1", token.Generate())
		if err := s.InsertKey(ctx, k, nil, -1); err != nil {
			return err
		}
		fmt.Println("inserted", k.ID)
		k.Version, k.RevokedAt = 1, testDay
		if err := s.UpdateKey(ctx, k); err != nil {
			return err
		}
		fmt.Println("revoked", k.ID)
	}
}

// spend adds to a count until it is refused.
func spend(ctx context.Context, s backend, key string, limit int64) error {
	for {
		count, ok, err := s.Add(ctx, key, testDay, 1, limit)
		if !ok {
			return err
		}
		fmt.Println(key, count)
	}
}

// killed kills a writeProgram, without a warning, when it has printed a number of
// lines, and returns all that it has printed until then.
func killed(t *testing.T, p *process, after int) []string {
	t.Helper()
	var acknowledged []string
	for len(acknowledged) < after {
		line, ok := p.line()
		require.True(t, ok, "stderr: %s", &p.stderr)
		acknowledged = append(acknowledged, line)
	}
	require.NoError(t, p.cmd.Process.Kill())
	for line, ok := p.line(); ok; line, ok = p.line() {
		acknowledged = append(acknowledged, line) // was printed before
	}
	require.Error(t, p.cmd.Wait(), "the process must not have ended by itself")
	return acknowledged
}

// requireKept requires of a store that what a writeProgram had acknowledged is
// there, that the counts are at least what was acknowledged and at most their
// limit, and that the feed has no gap. The user was the first change.
func requireKept(t *testing.T, s backend, acknowledged []string) {
	t.Helper()
	counts := make(map[string]int64) // the highest that was acknowledged
	inserted := 0
	for _, line := range acknowledged {
		what, value, _ := strings.Cut(line, " ")
		switch what {
		case "inserted", "revoked":
			keys, err := s.Keys(t.Context(), store.Query{ID: value, Revoked: true})
			require.NoError(t, err)
			require.Len(t, keys, 1, "the key that was %s", what)
			if what == "revoked" {
				require.Equal(t, testDay, keys[0].RevokedAt)
			}
			inserted++
		case "open", "limited":
			n, err := strconv.ParseInt(value, 10, 64)
			require.NoError(t, err)
			counts[what] = max(counts[what], n)
		default:
			t.Fatalf("the process printed %q", line)
		}
	}
	for _, c := range []struct {
		key string
		max int64
	}{
		// Each of the goroutines that count may have been killed between the commit
		// and the line.
		{"open", counts["open"] + writers},
		{"limited", min(counts["limited"]+writers, writeLimit)},
	} {
		count, _, err := s.Add(t.Context(), c.key, testDay, 0, 0)
		require.NoError(t, err)
		require.GreaterOrEqual(t, count, counts[c.key], "what was acknowledged of %s", c.key)
		require.LessOrEqual(t, count, c.max, "count of %s", c.key)
	}
	changes, _, err := s.Changes(t.Context(), 0)
	require.NoError(t, err)
	require.GreaterOrEqual(t, len(changes), inserted+1)
	require.Equal(t, store.ChangedUser, changes[0].Kind)
}
