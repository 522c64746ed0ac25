package audit_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/policy"
	"github.com/keystile/keystile/store/audit"
)

// full is an event with every field.
func full() audit.Event {
	return audit.Event{
		ID:     "act1",
		Time:   time.Date(2026, 3, 1, 13, 0, 0, 500_000, time.FixedZone("", 3600)),
		Phase:  audit.Outcome,
		Action: audit.SettingsUpdate,
		Actor: audit.Actor{
			ID: "olga", Role: "owner", Credential: policy.Session,
			Addr: netip.MustParseAddr("::ffff:192.0.2.7"), UserAgent: `curl/8 "x"`,
		},
		Org:   "acme",
		User:  "ada",
		KeyID: "csk_live_a1b2c3d4",
		Changes: []audit.Change{
			{Field: "max_age", Before: "0", After: "2592000"},
			{Field: "allowed_ips", After: "192.0.2.0/24 # Vienna\n2001:db8::/32"},
		},
		Outcome: audit.Unknown,
		Reason:  "store_unavailable",
		Err:     errors.New("keys: update settings: connection refused"),

		Suppressed: 12,
	}
}

// write returns what NewJSON makes of e.
func write(tb testing.TB, e audit.Event) string {
	tb.Helper()
	var out bytes.Buffer
	require.NoError(tb, audit.NewJSON(&out).Write(tb.Context(), e))
	return out.String()
}

// decode returns the members of a line, by their dotted names.
func decode(tb testing.TB, line string) map[string]any {
	tb.Helper()
	require.True(tb, strings.HasSuffix(line, "}\n"), "%q", line)
	require.Equal(tb, 1, strings.Count(line, "\n"), "one event is one line: %q", line)
	var members map[string]any
	require.NoError(tb, json.Unmarshal([]byte(line), &members))
	flat := make(map[string]any)
	flatten(flat, "", members)
	return flat
}

func flatten(flat map[string]any, prefix string, members map[string]any) {
	for name, v := range members {
		if m, ok := v.(map[string]any); ok {
			flatten(flat, prefix+name+".", m)
			continue
		}
		flat[prefix+name] = v
	}
}

func TestEveryField(t *testing.T) {
	t.Parallel()
	require.Equal(t, map[string]any{
		"@timestamp":                          "2026-03-01T12:00:00.0005Z",
		"message":                             "settings.update: unknown",
		"ecs.version":                         "8.17.0",
		"event.id":                            "act1",
		"event.kind":                          "event",
		"event.category":                      []any{"iam"},
		"event.type":                          []any{"change", "admin"},
		"event.action":                        "settings.update",
		"event.outcome":                       "unknown",
		"event.reason":                        "store_unavailable",
		"event.provider":                      "keystile",
		"user.id":                             "olga",
		"user.roles":                          []any{"owner"},
		"user.target.id":                      "ada",
		"organization.id":                     "acme",
		"source.ip":                           "192.0.2.7",
		"user_agent.original":                 `curl/8 "x"`,
		"error.message":                       "keys: update settings: connection refused",
		"keystile.phase":                      "outcome",
		"keystile.credential":                 "session",
		"keystile.key.id":                     "csk_live_a1b2c3d4",
		"keystile.suppressed":                 12.0,
		"keystile.changes.max_age.before":     "0",
		"keystile.changes.max_age.after":      "2592000",
		"keystile.changes.allowed_ips.before": "",
		"keystile.changes.allowed_ips.after":  "192.0.2.0/24 # Vienna\n2001:db8::/32",
	}, decode(t, write(t, full())))
}

// What is not known is not there, rather than there and empty: an empty source.ip
// is one that Elasticsearch refuses the whole line for.
func TestUnknownIsLeftOut(t *testing.T) {
	t.Parallel()
	require.Equal(t, map[string]any{
		"@timestamp":     "2026-03-01T12:00:00Z",
		"message":        "keys.purge: success",
		"ecs.version":    "8.17.0",
		"event.kind":     "event",
		"event.category": []any{"iam"},
		"event.type":     []any{"deletion", "admin"},
		"event.action":   "keys.purge",
		"event.outcome":  "success",
		"event.provider": "keystile",
	}, decode(t, write(t, audit.Event{
		Time: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), Action: audit.KeysPurge, Outcome: audit.Success,
	})))
}

// An intent is what ECS calls an attempt: its outcome is unknown, and it is no
// reason to warn.
func TestIntent(t *testing.T) {
	t.Parallel()
	e := full()
	e.Phase, e.Outcome, e.Reason, e.Err = audit.Intent, "", "", nil
	got := decode(t, write(t, e))
	require.Equal(t, "intent", got["keystile.phase"])
	require.Equal(t, "unknown", got["event.outcome"])
	require.Equal(t, "settings.update: intent", got["message"])

	for _, tt := range []struct {
		phase   audit.Phase
		outcome string
		want    string
	}{
		{audit.Intent, "", "INFO"},
		{audit.Outcome, audit.Success, "INFO"},
		{audit.Outcome, audit.Failure, "WARN"},
		{audit.Outcome, audit.Unknown, "WARN"},
	} {
		var out bytes.Buffer
		e.Phase, e.Outcome = tt.phase, tt.outcome
		require.NoError(t, audit.NewSlog(slog.NewJSONHandler(&out, nil)).Write(t.Context(), e))
		require.Equal(t, tt.want, decode(t, out.String())["level"], tt)
	}
}

// Every action has a category and types that ECS 8 allows: for iam one type for
// what was done and one for what kind of thing it was done to.
func TestCategories(t *testing.T) {
	t.Parallel()
	for action, want := range map[string][]any{
		audit.KeyCreate:      {"creation", "user"},
		audit.KeyUpdate:      {"change", "user"},
		audit.KeyRotate:      {"change", "user"},
		audit.KeyDisable:     {"change", "user"},
		audit.KeyEnable:      {"change", "user"},
		audit.KeyRevoke:      {"deletion", "user"},
		audit.KeysPurge:      {"deletion", "admin"},
		audit.UserPut:        {"change", "user"},
		audit.UserPermission: {"change", "user"},
		audit.SettingsUpdate: {"change", "admin"},
		audit.Authentication: {"start"},
	} {
		e := full()
		e.Action = action
		got := decode(t, write(t, e))
		require.Equal(t, want, got["event.type"], action)
		category := "iam"
		if action == audit.Authentication {
			category = "authentication"
		}
		require.Equal(t, []any{category}, got["event.category"], action)
	}
}

// hostile are texts that would forge a line, end one, or hide a part of one on a
// terminal, if they were printed as they are.
var hostile = map[string]string{
	"line end":            "x\n{\"event\":{\"action\":\"key.create\"}}",
	"carriage return":     "x\r\nlevel=INFO msg=forged",
	"quotes":              `x","event":{"outcome":"success"},"y":"`,
	"key and value":       `x" event.outcome=success`,
	"terminal":            "x\x1b[2K\x1b[1A",
	"C1 control":          "x\u009b2K",
	"next line":           "x\u0085y",
	"line separator":      "x\u2028y\u2029z",
	"direction":           "x\u202egpj.\u2066",
	"NUL":                 "x\x00y",
	"delete":              "x\x7f",
	"not UTF-8":           "x\xff\xc3",
	"byte order mark":     "\ufeffx",
	"markup":              "<script>alert(1)</script>",
	"long":                strings.Repeat("ü", 4000),
	"long, not UTF-8":     strings.Repeat("\xff", 4000),
	"long, of four bytes": "x" + strings.Repeat("🔑", 4000),
}

// forged puts the text wherever a client or a person chooses one.
func forged(text string) audit.Event {
	e := full()
	e.Actor.ID, e.Actor.Role, e.Actor.UserAgent = text, text, text
	e.Org, e.User, e.KeyID, e.Reason, e.Err = text, text, text, text, errors.New(text)
	e.Changes = []audit.Change{{Field: "name", Before: text, After: text}}
	return e
}

func TestNothingIsForged(t *testing.T) {
	t.Parallel()
	for name, text := range hostile {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			checkForged(t, text)
		})
	}
}

func checkForged(t *testing.T, text string) {
	t.Helper()
	e := forged(text)
	line := write(t, e)
	checkLine(t, line)
	got := decode(t, line)
	require.Equal(t, "settings.update", got["event.action"])
	require.Equal(t, "unknown", got["event.outcome"])
	require.Equal(t, "2026-03-01T12:00:00.0005Z", got["@timestamp"])
	for name, v := range got {
		require.Contains(t, knownNames, name, "a member of somebody else's making")
		if s, ok := v.(string); ok && !strings.HasPrefix(name, "keystile.changes.") {
			require.LessOrEqual(t, len(s), 3*1024+len("…"), name) // U+FFFD has three bytes
		}
	}

	var out bytes.Buffer
	require.NoError(t, audit.NewSlog(slog.NewTextHandler(&out, nil)).Write(t.Context(), e))
	checkLine(t, out.String())
	require.Equal(t, 1, strings.Count(out.String(), " event.outcome=unknown "))
}

// knownNames are all members that a line can have.
var knownNames = []string{
	"@timestamp", "message", "ecs.version", "event.id", "event.kind", "event.category", "event.type",
	"event.action", "event.outcome", "event.reason", "event.provider", "user.id", "user.roles", "user.target.id",
	"organization.id", "source.ip", "user_agent.original", "error.message",
	"keystile.phase", "keystile.credential", "keystile.key.id", "keystile.suppressed",
	"keystile.changes.name.before", "keystile.changes.name.after",
}

// checkLine checks that a line is one, of characters that can be seen.
func checkLine(t *testing.T, line string) {
	t.Helper()
	text, ok := strings.CutSuffix(line, "\n")
	require.True(t, ok)
	require.True(t, utf8.ValidString(text))
	require.False(t, strings.ContainsFunc(text, func(r rune) bool {
		return !unicode.IsGraphic(r) && r != '\u200c' && r != '\u200d'
	}), "%q", text)
}

// FuzzLine: whatever the texts are, an event is one line of printable characters
// with the members it should have, and a text that is harmless arrives as it is.
func FuzzLine(f *testing.F) {
	for _, text := range hostile {
		f.Add(text)
	}
	f.Add("نامه\u200cها") // of a script that needs a joiner
	f.Fuzz(func(t *testing.T, text string) {
		checkForged(t, text)
		harmless := text != "" && len(text) <= 1024 && utf8.ValidString(text) && !strings.ContainsFunc(text, func(r rune) bool {
			return !unicode.IsGraphic(r) && r != '\n' && r != '\u200c' && r != '\u200d'
		})
		if harmless {
			got := decode(t, write(t, forged(text)))
			require.Equal(t, text, got["user_agent.original"])
			require.Equal(t, text, got["keystile.changes.name.after"])
		}
	})
}

// A text that is too long is cut between two characters, not within one.
func TestCut(t *testing.T) {
	t.Parallel()
	for _, char := range []string{"x", "ü", "€", "🔑"} {
		for _, before := range []string{"", "x", "xx", "xxx"} {
			e := full()
			e.Actor.UserAgent = before + strings.Repeat(char, 2000)
			got := decode(t, write(t, e))["user_agent.original"].(string)
			kept, ok := strings.CutSuffix(got, "…")
			require.True(t, ok)
			require.True(t, strings.HasPrefix(e.Actor.UserAgent, kept), "%q", kept[len(kept)-8:])
			require.Greater(t, len(kept), 1024-4)
			require.LessOrEqual(t, len(kept), 1024)
		}
	}
}

// Changes are what an auditor looks for: they are not cut.
func TestChangesAreWhole(t *testing.T) {
	t.Parallel()
	e := full()
	list := strings.Repeat("192.0.2.7\n", 10_000)
	e.Changes = []audit.Change{{Field: "allowed_ips", Before: list}}
	want := slices.Clone(e.Changes)
	require.Equal(t, list, decode(t, write(t, e))["keystile.changes.allowed_ips.before"])
	require.Equal(t, want, e.Changes)
}

var errFull = errors.New("no space left on device")

type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, errFull }

// A required Sink must know that a line was not written.
func TestFailureIsReported(t *testing.T) {
	t.Parallel()
	require.ErrorIs(t, audit.NewJSON(fullDisk{}).Write(t.Context(), full()), errFull)
	require.ErrorIs(t, audit.NewSlog(slog.NewTextHandler(fullDisk{}, nil)).Write(t.Context(), full()), errFull)
}

// The zero configuration keeps nothing, and says so, so that a required trail that
// was forgotten refuses every act.
func TestNothingToWriteTo(t *testing.T) {
	t.Parallel()
	require.ErrorContains(t, audit.NewJSON(nil).Write(t.Context(), full()), "no handler")
	require.ErrorContains(t, audit.NewSlog(nil).Write(t.Context(), full()), "no handler")
}

// A trail is not thinned out by the level of a handler that it shares with a log.
func TestLevelDropsNothing(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	h := slog.NewJSONHandler(&out, &slog.HandlerOptions{Level: slog.LevelError})
	require.NoError(t, audit.NewSlog(h).Write(t.Context(), full()))
	require.NotEmpty(t, out.String())
}

// A oneAtATime panics if it is called while it is being called.
type oneAtATime struct {
	busy  atomic.Bool
	lines []string
}

func (w *oneAtATime) Write(b []byte) (int, error) {
	if !w.busy.CompareAndSwap(false, true) {
		panic("two writes at a time")
	}
	w.lines = append(w.lines, string(b))
	w.busy.Store(false)
	return len(b), nil
}

var _ io.Writer = (*oneAtATime)(nil)

// Each event is one call of Write, so that lines of several processes that append
// to one file do not mix, and no two calls overlap.
func TestConcurrentEvents(t *testing.T) {
	t.Parallel()
	const writers, events = 20, 50
	w := new(oneAtATime)
	sink := audit.NewJSON(w)
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			for j := range events {
				e := full()
				e.ID = fmt.Sprint(i, "-", j)
				if err := sink.Write(t.Context(), e); err != nil {
					panic(err)
				}
			}
		})
	}
	wg.Wait()
	ids := make(map[any]int)
	for _, line := range w.lines {
		ids[decode(t, line)["event.id"]]++
	}
	require.Len(t, ids, writers*events)
	require.Len(t, w.lines, writers*events)
}
