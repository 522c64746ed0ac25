package servers

import (
	"errors"
	"os"
	"testing"
)

// ErrMissing is wrapped by the errors for servers that are not installed.
var ErrMissing = errors.New("not installed")

// Check skips the test if err says that a server is not installed, and fails it
// for any other error. With KEYSTILE_REQUIRE_SERVERS=1 in the environment it
// fails for both, so that CI cannot lose a server without a word.
func Check(t testing.TB, err error) {
	t.Helper()
	switch {
	case err == nil:
	case errors.Is(err, ErrMissing) && os.Getenv("KEYSTILE_REQUIRE_SERVERS") != "1":
		t.Skipf("NOT TESTED: %v (KEYSTILE_REQUIRE_SERVERS=1 makes this a failure)", err)
	default:
		t.Fatal(err)
	}
}
