package itest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/store/sqlitestore"
	"github.com/keystile/keystile/token"
)

// testDay is a day on which tests count, and ends then.
var testDay = time.Date(2026, time.March, 10, 0, 0, 0, 0, time.UTC)

// openProcess is what a process does first: it opens the store in a file, which
// has its tables already.
func openProcess(ctx context.Context, file string) (*sqlitestore.Store, error) {
	db, err := sql.Open("sqlite", sqlitestore.DSN(file))
	if err != nil {
		return nil, err
	}
	s, err := sqlitestore.New(db, nil)
	if err != nil {
		return nil, err
	}
	return s, s.Validate(ctx)
}

// TestSQLiteLimitAcrossProcesses shows S61, S62 and D8: of 300 requests at once,
// 150 in each of two processes, a limit of 250 admits exactly 250.
func TestSQLiteLimitAcrossProcesses(t *testing.T) {
	t.Parallel()
	file := newFile(t)
	newStore(t, openFile(t, file), nil)
	admitted, refused := make(map[string]int), 0
	for _, line := range together(t, 2, "sqlite add", file) {
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

// addProcess adds 1 to a count, 150 times at once, and prints each answer.
func addProcess(ctx context.Context, args []string) error {
	s, err := openProcess(ctx, args[0])
	if err != nil {
		return err
	}
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

// TestSQLiteCapAcrossProcesses shows S12, S13 and F54: of 50 creations at once,
// 25 in each of two processes, a cap of 5 leaves exactly 5 keys.
func TestSQLiteCapAcrossProcesses(t *testing.T) {
	t.Parallel()
	file := newFile(t)
	s := newStore(t, openFile(t, file), nil)
	require.NoError(t, s.PutUser(t.Context(), testUser(1)))
	outcomes := make(map[string]int)
	for _, line := range together(t, 2, "sqlite insert", file) {
		outcomes[line]++
	}
	require.Equal(t, map[string]int{"inserted": 5, "limit": 45}, outcomes)
	keys, err := s.Keys(t.Context(), store.Query{Org: "acme", User: "u1"})
	require.NoError(t, err)
	require.Len(t, keys, 5)
}

// insertProcess inserts 25 keys of one user at once and prints each answer.
func insertProcess(ctx context.Context, args []string) error {
	s, err := openProcess(ctx, args[0])
	if err != nil {
		return err
	}
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

// TestSQLiteKill kills a process, without a warning, in the middle of creating
// keys, revoking them and counting. What it had acknowledged must be there, the
// count must be at least what was acknowledged and at most the limit, and the
// file must be sound.
func TestSQLiteKill(t *testing.T) {
	t.Parallel()
	for _, after := range []int{1, 50, 400} {
		t.Run(fmt.Sprintf("after %d writes", after), func(t *testing.T) {
			t.Parallel()
			file := newFile(t)
			s := newStore(t, openFile(t, file), nil)
			require.NoError(t, s.PutUser(t.Context(), testUser(1)))

			p := start(t, "sqlite write", file)
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

			// As after a restart: with connections that have not seen the file before.
			db := openFile(t, file)
			s, err := sqlitestore.New(db, nil)
			require.NoError(t, err)
			require.NoError(t, s.Validate(t.Context()))
			var verdict string
			require.NoError(t, db.QueryRow("PRAGMA integrity_check").Scan(&verdict))
			require.Equal(t, "ok", verdict)

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
				// Each of the goroutines that count may have been killed between the
				// commit and the line.
				{"open", counts["open"] + writers},
				{"limited", min(counts["limited"]+writers, writeLimit)},
			} {
				count, _, err := s.Add(t.Context(), c.key, testDay, 0, 0)
				require.NoError(t, err)
				require.GreaterOrEqual(t, count, counts[c.key], "what was acknowledged of %s", c.key)
				require.LessOrEqual(t, count, c.max, "count of %s", c.key)
			}

			// The feed has no gap, and the change of every key that is there.
			changes, _, err := s.Changes(t.Context(), 0)
			require.NoError(t, err)
			require.GreaterOrEqual(t, len(changes), inserted+1)
			require.Equal(t, store.ChangedUser, changes[0].Kind)

			require.NoError(t, s.InsertKey(t.Context(), testKey("u1", token.Generate()), nil, -1), "it can be written on")
		})
	}
}

// What writeProcess does at once, and the limit of what it counts.
const (
	writers    = 2
	writeLimit = 20
)

// writeProcess writes until it is killed, and prints what was acknowledged.
func writeProcess(ctx context.Context, args []string) error {
	s, err := openProcess(ctx, args[0])
	if err != nil {
		return err
	}
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

func createAndRevoke(ctx context.Context, s *sqlitestore.Store) error {
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
func spend(ctx context.Context, s *sqlitestore.Store, key string, limit int64) error {
	for {
		count, ok, err := s.Add(ctx, key, testDay, 1, limit)
		if !ok {
			return err
		}
		fmt.Println(key, count)
	}
}
