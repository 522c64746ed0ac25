package storetest

import "context"

// CaseNames returns the names of all cases.
func CaseNames() []string {
	var names []string
	for _, c := range cases() {
		names = append(names, c.name)
	}
	return names
}

// RunCase runs one case. ErrSkip is returned if it needs what h is Without.
func RunCase(ctx context.Context, name string, h Harness) error {
	for _, c := range cases() {
		if c.name == name {
			return c.test(ctx, h)
		}
	}
	panic("no such case: " + name)
}

// ErrSkip is what a case returns that needs what a Harness is Without.
var ErrSkip = errSkip
