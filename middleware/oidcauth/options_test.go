package oidcauth_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/middleware/oidcauth"
)

// What cannot work is an error of New, which names the field and repeats no value.
func TestNew_BadOptions(t *testing.T) {
	t.Parallel()
	ids := []string{clientID}
	for _, tt := range []struct {
		name      string
		issuer    string
		clientIDs []string
		opts      oidcauth.Options
		field     string // empty: no error
	}{
		{"defaults", issuerURL, ids, oidcauth.Options{}, ""},
		{"issuer with a slash", issuerURL + "/", ids, oidcauth.Options{}, ""},
		{"issuer on localhost", "http://localhost:9000/pool", ids, oidcauth.Options{}, ""},
		{"issuer on 127.0.0.2", "http://127.0.0.2:9000", ids, oidcauth.Options{}, ""},
		{"issuer on ::1", "http://[::1]:9000", ids, oidcauth.Options{}, ""},
		{"issuer on mapped loopback", "http://[::ffff:127.0.0.1]:9000", ids, oidcauth.Options{}, ""},
		{"issuer empty", "", ids, oidcauth.Options{}, "issuer"},
		{"issuer without a scheme", "secret.example", ids, oidcauth.Options{}, "issuer"},
		{"issuer without a host", "https:///secret", ids, oidcauth.Options{}, "issuer"},
		{"issuer opaque", "https:secret", ids, oidcauth.Options{}, "issuer"},
		{"issuer http", "http://secret.example", ids, oidcauth.Options{}, "issuer"},
		{"issuer http on a private address", "http://10.0.0.1", ids, oidcauth.Options{}, "issuer"},
		{"issuer http on a name like localhost", "http://localhost.secret.example", ids, oidcauth.Options{}, "issuer"},
		{"issuer ftp", "ftp://secret.example", ids, oidcauth.Options{}, "issuer"},
		{"issuer with a user", "https://secret:word@issuer.example", ids, oidcauth.Options{}, "issuer"},
		{"issuer with a query", issuerURL + "?secret", ids, oidcauth.Options{}, "issuer"},
		{"issuer with a fragment", issuerURL + "#secret", ids, oidcauth.Options{}, "issuer"},
		{"issuer unparsable", "https://secret.example/%zz", ids, oidcauth.Options{}, "issuer"},
		{"no clients", issuerURL, nil, oidcauth.Options{}, "clientIDs"},
		{"an empty client", issuerURL, []string{clientID, ""}, oidcauth.Options{}, "clientIDs"},
		{"JWKSURL", issuerURL, ids, oidcauth.Options{JWKSURL: "https://keys.example/jwks?pool=1"}, ""},
		{"JWKSURL http", issuerURL, ids, oidcauth.Options{JWKSURL: "http://secret.example/jwks"}, "JWKSURL"},
		{"JWKSURL relative", issuerURL, ids, oidcauth.Options{JWKSURL: "/secret"}, "JWKSURL"},
		{"no cache", issuerURL, ids, oidcauth.Options{CacheSize: -1}, ""},
		{"CacheSize", issuerURL, ids, oidcauth.Options{CacheSize: -2}, "CacheSize"},
		{"KeysRefresh", issuerURL, ids, oidcauth.Options{KeysRefresh: time.Minute - 1}, "KeysRefresh"},
		{"KeysMaxAge", issuerURL, ids, oidcauth.Options{KeysMaxAge: 14 * time.Minute}, "KeysMaxAge"},
		{"KeysMaxAge alike", issuerURL, ids, oidcauth.Options{KeysMaxAge: 15 * time.Minute}, ""},
		{"most Leeway", issuerURL, ids, oidcauth.Options{Leeway: 5 * time.Minute}, ""},
		{"Leeway", issuerURL, ids, oidcauth.Options{Leeway: 5*time.Minute + 1}, "Leeway"},
		{"Leeway negative", issuerURL, ids, oidcauth.Options{Leeway: -time.Second}, "Leeway"},
		{"MaxLifetime", issuerURL, ids, oidcauth.Options{MaxLifetime: -1}, "MaxLifetime"},
		{"owner", issuerURL, ids, oidcauth.Options{OwnerClaim: "cognito:groups", OwnerValue: "owners"}, ""},
		{"OwnerClaim alone", issuerURL, ids, oidcauth.Options{OwnerClaim: "secret"}, "OwnerClaim"},
		{"OwnerValue alone", issuerURL, ids, oidcauth.Options{OwnerValue: "secret"}, "OwnerClaim"},
		{"TokenUses empty", issuerURL, ids, oidcauth.Options{TokenUses: []oidcauth.TokenUse{}}, "TokenUses"},
		{"TokenUses refresh", issuerURL, ids, oidcauth.Options{TokenUses: []oidcauth.TokenUse{oidcauth.Access, "refresh"}}, "TokenUses"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tt.opts.HTTPClient = always(404, "")
			a, err := oidcauth.New(tt.issuer, tt.clientIDs, &tt.opts)
			if tt.field == "" {
				require.NoError(t, err)
				require.NoError(t, a.Close())
				return
			}
			require.Nil(t, a)
			problem, ok := errors.AsType[*oidcauth.OptionError](err)
			require.True(t, ok)
			require.Equal(t, tt.field, problem.Field)
			require.True(t, strings.HasPrefix(err.Error(), "oidcauth: "+tt.field+": "))
			require.NotContains(t, err.Error(), "secret")
		})
	}
}

// All problems are reported at once.
func TestNew_AllProblems(t *testing.T) {
	t.Parallel()
	_, err := oidcauth.New("", nil, &oidcauth.Options{CacheSize: -2, Leeway: time.Hour})
	for _, field := range []string{"issuer", "clientIDs", "JWKSURL", "CacheSize", "Leeway"} {
		require.ErrorContains(t, err, "oidcauth: "+field+": ")
	}
}

// The arguments are the caller's to change afterwards.
func TestNew_CopiesArguments(t *testing.T) {
	t.Parallel()
	ids, uses := []string{clientID}, []oidcauth.TokenUse{oidcauth.Access}
	a, err := oidcauth.New(issuerURL, ids, &oidcauth.Options{HTTPClient: shared().Client(), TokenUses: uses})
	require.NoError(t, err)
	t.Cleanup(func() { a.Close() })
	ids[0], uses[0] = "x", oidcauth.ID
	accepted(t, a, shared().AccessToken("alice", nil))
}
