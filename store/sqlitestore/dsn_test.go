package sqlitestore_test

import (
	"net/url"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/store/sqlitestore"
)

func TestDSN(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("paths have another form there")
	}
	for _, tt := range []struct {
		name, path, want string
	}{
		{"relative", "keys.db", "file:./keys.db"},
		{"absolute", "/var/lib/keys.db", "file:///var/lib/keys.db"},
		{"leading slashes", "//host/keys.db", "file:////host/keys.db"},
		{"blanks", "a b.db", "file:./a b.db"},
		{"query", "a?b.db", "file:./a%3fb.db"},
		{"fragment", "a#b.db", "file:./a%23b.db"},
		{"percent", "a%20b.db", "file:./a%2520b.db"},
		{"memory", ":memory:", "file:./:memory:"},
		{"scheme", "file:a", "file:./file:a"},
		{"empty", "", "file:./"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			file, query, ok := strings.Cut(sqlitestore.DSN(tt.path), "?")
			require.True(t, ok)
			require.Equal(t, tt.want, file)
			values, err := url.ParseQuery(query)
			require.NoError(t, err)
			require.Equal(t, url.Values{
				"_pragma": {"busy_timeout(5000)", "journal_mode(WAL)", "synchronous(FULL)", "foreign_keys(1)"},
				"_txlock": {"immediate"},
			}, values)
		})
	}
}
