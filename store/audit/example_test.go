package audit_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"time"

	"github.com/keystile/keystile/policy"
	"github.com/keystile/keystile/store/audit"
)

func exampleEvent() audit.Event {
	return audit.Event{
		ID:     "4Q5YV3XJ6B7WZK2M",
		Time:   time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC),
		Phase:  audit.Outcome,
		Action: audit.KeyUpdate,
		Actor: audit.Actor{
			ID: "u9", Role: "owner", Credential: policy.JWT, Addr: netip.MustParseAddr("192.0.2.7"),
		},
		Org:     "acme",
		User:    "u1",
		KeyID:   "csk_live_a1b2c3d4",
		Changes: []audit.Change{{Field: "daily_limit", Before: "0", After: "1000"}},
		Outcome: audit.Success,
	}
}

func ExampleNewJSON() {
	sink := audit.NewJSON(os.Stdout) // in a service, a file opened with O_APPEND
	if err := sink.Write(context.Background(), exampleEvent()); err != nil {
		fmt.Println(err)
	}
	// Output:
	// {"@timestamp":"2026-03-01T12:00:00Z","message":"key.update: success","event":{"id":"4Q5YV3XJ6B7WZK2M","kind":"event","category":["iam"],"type":["change","user"],"action":"key.update","outcome":"success","provider":"keystile"},"user":{"id":"u9","roles":["owner"],"target":{"id":"u1"}},"organization":{"id":"acme"},"source":{"ip":"192.0.2.7"},"keystile":{"phase":"outcome","credential":"jwt","key":{"id":"csk_live_a1b2c3d4"},"changes":{"daily_limit":{"before":"0","after":"1000"}}},"ecs":{"version":"8.17.0"}}
}

// A handler that the host has already, here one for people.
func ExampleNewSlog() {
	h := slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{
		ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
			if len(groups) == 0 && a.Key == slog.TimeKey {
				return slog.Attr{} // the host's log daemon adds it
			}
			return a
		},
	})
	e := exampleEvent()
	e.Outcome, e.Reason, e.Err = audit.Failure, "not_found", errors.New("keys: update key: store: not found")
	if err := audit.NewSlog(h).Write(context.Background(), e); err != nil {
		fmt.Println(err)
	}
	// Output:
	// level=WARN msg="key.update: failure" event.id=4Q5YV3XJ6B7WZK2M event.kind=event event.category=[iam] event.type="[change user]" event.action=key.update event.outcome=failure event.reason=not_found event.provider=keystile user.id=u9 user.roles=[owner] user.target.id=u1 organization.id=acme source.ip=192.0.2.7 error.message="keys: update key: store: not found" keystile.phase=outcome keystile.credential=jwt keystile.key.id=csk_live_a1b2c3d4 keystile.changes.daily_limit.before=0 keystile.changes.daily_limit.after=1000 ecs.version=8.17.0
}

// A Logger drops the error of its handler, so that a sink made of it could not be
// required: nobody would know that the disk is full.
func ExampleSink_incorrect() {
	log := slog.New(failing{slog.NewTextHandler(os.Stdout, nil)})
	log.Info("key.update") // incorrect: lost, and nothing says so

	err := audit.NewSlog(log.Handler()).Write(context.Background(), exampleEvent())
	fmt.Println(err)
	// Output: disk full
}

type failing struct{ slog.Handler }

func (failing) Handle(context.Context, slog.Record) error { return errors.New("disk full") }
