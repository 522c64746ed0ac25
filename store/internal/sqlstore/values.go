package sqlstore

import (
	"database/sql/driver"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/keystile/keystile/policy"
	"github.com/keystile/keystile/token"
)

// A value that cannot be what this package wrote is a failure of the store.
var errCorrupt = errors.New("not a value that keystile wrote")

// micros returns a time as it is stored, in a column that is never NULL.
func micros(t time.Time) int64 { return t.UnixMicro() }

// fromMicros returns the time that is stored as us.
func fromMicros(us int64) time.Time { return time.UnixMicro(us).UTC() }

// nullMicros returns a time as it is stored: NULL if it is zero.
func nullMicros(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return micros(t)
}

// An instant reads a time.
type instant time.Time

// Scan implements [database/sql.Scanner].
func (i *instant) Scan(src any) error {
	switch v := src.(type) {
	case nil:
		*i = instant{}
	case int64:
		*i = instant(fromMicros(v))
	default:
		return fmt.Errorf("time: %w", errCorrupt)
	}
	return nil
}

// A digest reads a [token.Digest].
type digest token.Digest

// Scan implements [database/sql.Scanner].
func (d *digest) Scan(src any) error {
	b, ok := src.([]byte)
	if !ok || len(b) != len(d) {
		return fmt.Errorf("digest: %w", errCorrupt)
	}
	copy(d[:], b)
	return nil
}

// text returns a text, which some drivers return as bytes.
func text(src any) (s string, ok bool) {
	switch v := src.(type) {
	case string:
		return v, true
	case []byte:
		return string(v), true
	}
	return "", false
}

// A list is stored as JSON.
type list[T any] []T

// Scan implements [database/sql.Scanner]. An empty list is nil. The error does
// not repeat the text.
func (l *list[T]) Scan(src any) error {
	switch s, ok := text(src); {
	case s == "[]":
		*l = nil
		return nil
	case ok && json.Unmarshal([]byte(s), (*[]T)(l)) == nil:
		return nil
	}
	return fmt.Errorf("list: %w", errCorrupt)
}

// Value implements [driver.Valuer].
func (l list[T]) Value() (driver.Value, error) {
	if len(l) == 0 {
		return "[]", nil
	}
	b, err := json.Marshal([]T(l))
	return string(b), err
}

// An addressList reads the list of addresses of [policy.Settings].
type addressList policy.IPList

// Scan implements [database/sql.Scanner]. NULL is the only way to write that
// there is no restriction: whatever else does not restrict, like a text that was
// lost, is a failure.
func (l *addressList) Scan(src any) error {
	if src == nil {
		*l = addressList{}
		return nil
	}
	s, ok := text(src)
	if !ok {
		return fmt.Errorf("addresses: %w", errCorrupt)
	}
	list, err := policy.ParseIPList(s)
	if err != nil {
		return fmt.Errorf("addresses: %w: %w", errCorrupt, err)
	}
	if !list.Restricts() {
		return fmt.Errorf("addresses: %w", errCorrupt)
	}
	*l = addressList(list)
	return nil
}

// nullList returns a list as it is stored.
func nullList(l policy.IPList) any {
	if !l.Restricts() {
		return nil
	}
	return l.String()
}
