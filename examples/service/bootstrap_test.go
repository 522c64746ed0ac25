package main

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/store/audit"
	"github.com/keystile/keystile/store/keys"
	"github.com/keystile/keystile/store/memstore"
)

// A sinkFunc is told of each event.
type sinkFunc func(e audit.Event)

func (f sinkFunc) Write(_ context.Context, e audit.Event) error { f(e); return nil }

func disabledKeys() *bootstrap {
	return &bootstrap{Orgs: []bootstrapOrg{{Name: "o", Users: []bootstrapUser{{ID: "u", Role: roleOwner, Keys: []bootstrapKey{
		{Ref: "1", Name: "1", Disabled: true}, {Ref: "2", Name: "2", Disabled: true},
	}}}}}}
}

// TestBootstrapInterrupted: Ctrl-C after a key was made lets the key come to its end:
// it is disabled as the file says, and its token printed. The next key is not begun.
func TestBootstrapInterrupted(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	mgr, err := keys.New(memstore.New(), &keys.Options{Audit: sinkFunc(func(e audit.Event) {
		if e.Action == audit.KeyCreate {
			cancel()
		}
	})})
	if err != nil {
		t.Fatal(err)
	}
	defer mgr.Close()
	var out bytes.Buffer
	if _, err := disabledKeys().apply(ctx, mgr, &out); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	made, err := mgr.List(t.Context(), store.Query{Org: "o"})
	if err != nil || len(made) != 1 || made[0].DisabledAt.IsZero() {
		t.Error(made, err)
	}
	if !bytes.Contains(out.Bytes(), []byte(`"token"`)) {
		t.Errorf("printed %q", &out)
	}
}

// TestBootstrapKilled: a start that was killed may have made a key and not disabled it,
// which the next one does. A key that people have enabled since stays enabled.
func TestBootstrapKilled(t *testing.T) {
	t.Parallel()
	mgr, err := keys.New(memstore.New(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer mgr.Close()
	apply := func(b *bootstrap) *store.Key {
		t.Helper()
		if _, err := b.apply(t.Context(), mgr, &bytes.Buffer{}); err != nil {
			t.Fatal(err)
		}
		k, err := findKey(t.Context(), mgr, "o", "u", "1")
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	enabled := disabledKeys()
	enabled.Orgs[0].Users[0].Keys[0].Disabled = false
	apply(enabled) // is what the killed start left
	k := apply(disabledKeys())
	if k.DisabledAt.IsZero() {
		t.Error("it is enabled")
	}
	if _, err := mgr.Enable(t.Context(), operator, keys.Ref{Org: "o", User: "u", ID: k.ID}); err != nil {
		t.Fatal(err)
	}
	if k = apply(disabledKeys()); !k.DisabledAt.IsZero() {
		t.Error("what people have changed is changed back")
	}
}
