package audit

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"
	"unicode"
	"unicode/utf8"
)

// ecsVersion is the version of the Elastic Common Schema whose names are used.
const ecsVersion = "8.17.0"

// maxText bounds, in bytes, each text of an event that a client could choose.
const maxText = 1024

var errNoHandler = errors.New("audit: no handler to write to")

// NewSlog returns a Sink that hands each event to h as one record, with its fields
// named as in the Elastic Common Schema (ECS 8), in groups: event, user,
// organization, source, user_agent, error, ecs, and keystile for what ECS has no
// name for. The time, the level and the message of the record are named by h; see
// [NewJSON] for lines that are ECS as a whole. The level is Info for a success and
// for an intent, Warn otherwise; h is not asked whether it is enabled, because a
// trail is not to be thinned out by a level.
//
// What h.Handle returns is the answer of Write, so h should report failed writes,
// as the handlers of log/slog do. A nil h fails every Write.
//
// Nothing that a client chose can forge a line or hide a part of one: control
// characters, those that turn the direction of text, and bytes that are not UTF-8
// are replaced by U+FFFD, texts are cut at 1024 bytes, and line ends are left only
// in values, for h to quote. The values of [Event.Changes] are not cut.
func NewSlog(h slog.Handler) Sink { return slogSink{h} }

// NewJSON returns a Sink that writes each event to w as a line of JSON that
// follows the Elastic Common Schema: as [NewSlog], with @timestamp and message. It
// calls w.Write once for each event and never twice at a time, and returns its
// error. A file should be opened with O_APPEND. A nil w fails every Write.
func NewJSON(w io.Writer) Sink {
	if w == nil {
		return slogSink{}
	}
	return slogSink{slog.NewJSONHandler(w, &slog.HandlerOptions{ReplaceAttr: ecsName})}
}

// ecsName gives the fields that slog adds by itself the names of ECS.
func ecsName(groups []string, a slog.Attr) slog.Attr {
	if len(groups) > 0 {
		return a
	}
	switch a.Key {
	case slog.TimeKey:
		a.Key = "@timestamp"
	case slog.MessageKey:
		a.Key = "message"
	case slog.LevelKey:
		return slog.Attr{} // event.outcome says more
	}
	return a
}

type slogSink struct{ handler slog.Handler }

func (s slogSink) Write(ctx context.Context, e Event) error {
	if s.handler == nil {
		return errNoHandler
	}
	return s.handler.Handle(ctx, record(e))
}

// record returns e as slog and ECS have it.
func record(e Event) slog.Record {
	outcome := e.Outcome
	if e.Phase == Intent {
		outcome = Unknown // which is what ECS has for an attempt
	}
	level := slog.LevelInfo
	if e.Phase != Intent && outcome != Success {
		level = slog.LevelWarn
	}
	r := slog.NewRecord(e.Time.UTC(), level, message(e, outcome), 0)
	category, kinds := categorize(e.Action)
	var credential string
	if e.Actor.Credential != 0 {
		credential = e.Actor.Credential.String()
	}
	var addr string
	if e.Actor.Addr.IsValid() {
		addr = e.Actor.Addr.Unmap().WithZone("").String()
	}
	var cause string
	if e.Err != nil {
		cause = e.Err.Error()
	}
	r.AddAttrs(
		group("event",
			text("id", e.ID),
			text("kind", "event"),
			slog.Any("category", []string{category}),
			slog.Any("type", kinds),
			text("action", e.Action),
			text("outcome", outcome),
			text("reason", e.Reason),
			text("provider", "keystile"),
		),
		group("user",
			text("id", e.Actor.ID),
			list("roles", e.Actor.Role),
			group("target", text("id", e.User)),
		),
		group("organization", text("id", e.Org)),
		group("source", text("ip", addr)),
		group("user_agent", text("original", e.Actor.UserAgent)),
		group("error", text("message", cause)),
		group("keystile",
			text("phase", string(e.Phase)),
			text("credential", credential),
			group("key", text("id", e.KeyID)),
			number("suppressed", e.Suppressed),
			changes(e.Changes),
		),
		group("ecs", text("version", ecsVersion)),
	)
	return r
}

// message is the line for people; the fields say all of it again.
func message(e Event, outcome string) string {
	m := clean(e.Action)
	if e.Phase == Intent {
		return m + ": " + string(Intent)
	}
	return m + ": " + clean(outcome)
}

// categorize returns event.category and event.type of an action. Of a change to
// identities ECS wants two types: what was done, and to what kind of thing.
func categorize(action string) (category string, kinds []string) {
	switch action {
	case Authentication:
		return "authentication", []string{"start"}
	case KeyCreate:
		return "iam", []string{"creation", "user"}
	case KeyRevoke:
		return "iam", []string{"deletion", "user"}
	case KeysPurge:
		return "iam", []string{"deletion", "admin"}
	case SettingsUpdate:
		return "iam", []string{"change", "admin"}
	}
	return "iam", []string{"change", "user"}
}

// changes returns an object with a member for each field, rather than an array,
// whose elements Elasticsearch would mix up.
func changes(cs []Change) slog.Attr {
	fields := make([]slog.Attr, len(cs))
	for i, c := range cs {
		fields[i] = slog.Group(clean(c.Field), slog.String("before", printable(c.Before)), slog.String("after", printable(c.After)))
	}
	return group("changes", fields...)
}

// text returns a text field, and the Attr that group leaves out if it is empty.
func text(key, value string) slog.Attr {
	if value == "" {
		return slog.Attr{}
	}
	return slog.String(key, clean(value))
}

// number returns a field with a number, and the Attr that group leaves out for 0.
func number(key string, n int64) slog.Attr {
	if n == 0 {
		return slog.Attr{}
	}
	return slog.Int64(key, n)
}

// list returns a field that ECS has as an array.
func list(key, value string) slog.Attr {
	if value == "" {
		return slog.Attr{}
	}
	return slog.Any(key, []string{clean(value)})
}

// group returns a group of the fields that are not left out, and the Attr that is
// left out itself if there are none.
func group(key string, fields ...slog.Attr) slog.Attr {
	var kept []slog.Attr
	for _, f := range fields {
		if f.Key != "" {
			kept = append(kept, f)
		}
	}
	if len(kept) == 0 {
		return slog.Attr{}
	}
	return slog.Attr{Key: key, Value: slog.GroupValue(kept...)}
}

// clean returns s in printable characters, and cut to maxText bytes at the border
// of one.
func clean(s string) string {
	if len(s) <= maxText {
		return printable(s)
	}
	end := maxText
	for end > maxText-utf8.UTFMax && !utf8.RuneStart(s[end]) {
		end--
	}
	return printable(s[:end]) + "…"
}

// printable returns s with what cannot be seen, or would make the rest look like
// something else, replaced. Line ends stay: every format of slog quotes them. So do
// the zero-width joiners, which some scripts cannot be written without.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsGraphic(r) || r == '\n' || r == '\u200c' || r == '\u200d' {
			return r
		}
		return utf8.RuneError
	}, s)
}
