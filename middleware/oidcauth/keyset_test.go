package oidcauth_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/middleware"
	"github.com/keystile/keystile/middleware/oidcauth"
	"github.com/keystile/keystile/middleware/oidcauth/oidctest"
)

// The rules of section 5.3 of the requirements. All of it runs in synctest bubbles,
// so that the pauses cost no time, and a goroutine that outlives Close fails the
// test.

// slow makes every answer of an issuer take that long, of the bubble's time.
func slow(issuer *oidctest.Issuer, d time.Duration) *http.Client {
	inner := issuer.Client().Transport
	return answerer(func(r *http.Request) (*http.Response, error) {
		select {
		case <-time.After(d):
			return inner.RoundTrip(r)
		case <-r.Context().Done():
			return nil, r.Context().Err()
		}
	}).client()
}

// unknown returns a well-formed token with a kid that no key has.
func unknown(n int) string {
	return shared().Sign(map[string]any{"kid": fmt.Sprintf("unknown+%d/=", n)}, map[string]any{"sub": "alice"})
}

// fetches returns how often f made the issuer be asked.
func fetches(issuer *oidctest.Issuer, f func()) int {
	before := issuer.Fetches()
	f()
	synctest.Wait()
	return issuer.Fetches() - before
}

// 200 tokens with unknown kids cause one fetch, for which all wait together; in the
// pause after it such tokens are refused at once, and others are let in.
func TestKeys_UnknownKids_OneFetch(t *testing.T) {
	t.Parallel()
	issuer := oidctest.New(issuerURL, clientID, nil)
	synctest.Test(t, func(t *testing.T) {
		a := open(t, issuer, oidcauth.Options{HTTPClient: slow(issuer, time.Second)})
		time.Sleep(2 * time.Second) // until the fetch of New has ended
		require.Equal(t, 1, issuer.Fetches())
		good := issuer.AccessToken("alice", nil)

		start := time.Now()
		n := fetches(issuer, func() {
			var wg sync.WaitGroup
			for i := range 200 {
				wg.Go(func() { refused(t, a, unknown(i), "kid is unknown") })
			}
			wg.Go(func() { accepted(t, a, good) })
			wg.Wait()
		})
		require.Equal(t, 1, n)
		require.Equal(t, time.Second, time.Since(start), "all wait for the one fetch")

		start = time.Now()
		n = fetches(issuer, func() {
			for i := range 200 {
				refused(t, a, unknown(i), "kid is unknown")
			}
			accepted(t, a, issuer.AccessToken("bob", nil))
		})
		require.Zero(t, n)
		require.Zero(t, time.Since(start), "no request waits for the pause")

		time.Sleep(10 * time.Second)
		require.Equal(t, 1, fetches(issuer, func() {
			for i := range 200 {
				refused(t, a, unknown(i), "kid is unknown")
			}
		}))
	})
}

// A badly signed token of a known kid never causes a fetch, nor does one that is
// refused before its kid matters.
func TestKeys_BadSignature_NoFetch(t *testing.T) {
	t.Parallel()
	issuer := oidctest.New(issuerURL, clientID, nil)
	synctest.Test(t, func(t *testing.T) {
		a := open(t, issuer, oidcauth.Options{})
		synctest.Wait()
		require.Zero(t, fetches(issuer, func() {
			for fault, token := range issuer.Spoiled("alice") {
				if fault == "kid unknown" || fault == "signature by a key of its own kid" {
					continue
				}
				_, err := a.Authenticate(bearer(token))
				require.Error(t, err, fault)
			}
		}))
	})
}

// A rotated key is accepted at once, or within ten seconds if others have just asked
// for keys that there are not.
func TestKeys_RotatedKeyAccepted(t *testing.T) {
	t.Parallel()
	issuer := oidctest.New(issuerURL, clientID, nil)
	synctest.Test(t, func(t *testing.T) {
		a := open(t, issuer, oidcauth.Options{})
		synctest.Wait()
		before := issuer.AccessToken("alice", nil)
		issuer.Rotate()
		require.Equal(t, 1, fetches(issuer, func() { accepted(t, a, issuer.AccessToken("alice", nil)) }))
		accepted(t, a, before)

		time.Sleep(time.Minute)
		refused(t, a, unknown(0), "kid is unknown")
		issuer.Rotate()
		rotated := time.Now()
		token := issuer.AccessToken("alice", nil)
		n := fetches(issuer, func() {
			for {
				if _, err := a.Authenticate(bearer(token)); err == nil {
					break
				}
				time.Sleep(100 * time.Millisecond)
			}
		})
		require.Equal(t, 1, n)
		require.LessOrEqual(t, time.Since(rotated), 10*time.Second)
		require.Greater(t, time.Since(rotated), 8*time.Second, "there is a pause")
	})
}

// New needs no network. While the keys cannot be fetched nobody can tell: 503 and
// not 401, also in the pause, in which there is no fetch.
func TestKeys_IssuerDownAtStart(t *testing.T) {
	t.Parallel()
	issuer := oidctest.New(issuerURL, clientID, nil)
	issuer.SetDown(true)
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var failures []error
		a := open(t, issuer, oidcauth.Options{KeysFailed: func(err error) {
			mu.Lock()
			defer mu.Unlock()
			failures = append(failures, err)
		}})
		synctest.Wait()
		token := issuer.AccessToken("alice", nil)
		require.Equal(t, 1, fetches(issuer, func() { unavailable(t, a, token, "status 500") }))
		require.Zero(t, fetches(issuer, func() {
			for i := range 100 {
				unavailable(t, a, unknown(i), "status 500")
			}
		}))
		issuer.SetDown(false)
		require.Zero(t, fetches(issuer, func() { unavailable(t, a, token, "status 500") }))
		time.Sleep(9 * time.Second)
		require.Equal(t, 1, fetches(issuer, func() { accepted(t, a, token) }))
		mu.Lock()
		defer mu.Unlock()
		require.Len(t, failures, 2)
		for _, err := range failures {
			require.ErrorContains(t, err, "oidcauth: fetch of keys: status 500")
		}
	})
}

// The background tries again by itself, so that no request has to wait.
func TestKeys_BackgroundRecovers(t *testing.T) {
	t.Parallel()
	issuer := oidctest.New(issuerURL, clientID, nil)
	issuer.SetDown(true)
	synctest.Test(t, func(t *testing.T) {
		a := open(t, issuer, oidcauth.Options{})
		synctest.Wait()
		token := issuer.AccessToken("alice", nil)
		unavailable(t, a, token, "status 500") // begins a pause
		issuer.SetDown(false)
		time.Sleep(30 * time.Second)
		require.Zero(t, fetches(issuer, func() { accepted(t, a, token) }))
		require.Equal(t, 3, issuer.Fetches())
		refused(t, a, unknown(0), "kid is unknown")
	})
}

// In the pause after a fetch that failed nobody can tell; the keys that are known
// work on, and unknown ones are refused again after the next success.
func TestKeys_PauseAfterFailure(t *testing.T) {
	t.Parallel()
	issuer := oidctest.New(issuerURL, clientID, nil)
	synctest.Test(t, func(t *testing.T) {
		a := open(t, issuer, oidcauth.Options{})
		synctest.Wait()
		time.Sleep(time.Second)
		issuer.SetDown(true)
		unavailable(t, a, unknown(0), "status 500")
		time.Sleep(8 * time.Second)
		require.Zero(t, fetches(issuer, func() {
			unavailable(t, a, unknown(1), "status 500")
			accepted(t, a, issuer.AccessToken("alice", nil))
		}))
		issuer.SetDown(false)
		time.Sleep(time.Second)
		require.Equal(t, 1, fetches(issuer, func() { refused(t, a, unknown(1), "kid is unknown") }))
		require.Zero(t, fetches(issuer, func() { refused(t, a, unknown(2), "kid is unknown") }))
	})
}

// Failed fetches keep the keys up to a maximum age, and no longer, also for tokens
// that are remembered.
func TestKeys_MaxAge(t *testing.T) {
	t.Parallel()
	issuer := oidctest.New(issuerURL, clientID, &oidctest.Options{Lifetime: 1000 * time.Hour})
	synctest.Test(t, func(t *testing.T) {
		a := open(t, issuer, oidcauth.Options{KeysMaxAge: 20 * time.Hour})
		synctest.Wait()
		asOf := time.Now()
		issuer.SetDown(true)
		token := issuer.AccessToken("alice", nil)
		time.Sleep(time.Until(asOf.Add(20 * time.Hour)))
		accepted(t, a, token)
		accepted(t, a, issuer.AccessToken("bob", nil))
		time.Sleep(time.Nanosecond)
		unavailable(t, a, token, "status 500")
		unavailable(t, a, issuer.AccessToken("bob", nil), "status 500")
		issuer.SetDown(false)
		time.Sleep(30 * time.Second)
		accepted(t, a, token)
	})
}

// A kid that is gone from the set is refused from the next successful fetch on, also
// for tokens that are remembered.
func TestKeys_RemovedKeyDropped(t *testing.T) {
	t.Parallel()
	issuer := oidctest.New(issuerURL, clientID, nil)
	synctest.Test(t, func(t *testing.T) {
		a := open(t, issuer, oidcauth.Options{})
		synctest.Wait()
		old := issuer.AccessToken("alice", nil)
		accepted(t, a, old)
		issuer.Rotate()
		issuer.Retire()
		accepted(t, a, old) // not fetched yet
		accepted(t, a, issuer.AccessToken("alice", nil))
		refused(t, a, old, "kid is unknown")

		// In the background alone: within the interval.
		old = issuer.AccessToken("alice", nil)
		issuer.Rotate()
		issuer.Retire()
		time.Sleep(13 * time.Minute)
		accepted(t, a, old)
		time.Sleep(2 * time.Minute)
		refused(t, a, old, "kid is unknown")
	})
}

// A kid that comes to name another key forgets what its former key verified.
func TestKeys_SameKIDAnotherKey(t *testing.T) {
	t.Parallel()
	issuer := oidctest.New(issuerURL, clientID, nil)
	synctest.Test(t, func(t *testing.T) {
		body := jwks(t, jwk(t, map[string]any{"kid": "k"}))
		var mu sync.Mutex
		a := open(t, issuer, oidcauth.Options{KeysRefresh: time.Minute, HTTPClient: answerer(func(*http.Request) (*http.Response, error) {
			mu.Lock()
			defer mu.Unlock()
			return answer(http.StatusOK, body), nil
		}).client()})
		synctest.Wait()
		time.Sleep(50 * time.Second)
		token := shared().Sign(map[string]any{"kid": "k"}, claimsOf("alice"))
		accepted(t, a, token)
		mu.Lock()
		body = jwks(t, jwk(t, map[string]any{"kid": "k", "n": modulus(2048, 1)}))
		mu.Unlock()
		time.Sleep(10 * time.Second)
		refused(t, a, token, "signature is wrong")
	})
}

// A key that stays keeps what it verified remembered through a fetch.
func TestKeys_SameKeyStaysRemembered(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var known people
		a := open(t, shared(), oidcauth.Options{KeysRefresh: time.Minute, Users: &known})
		time.Sleep(50 * time.Second)
		token := shared().AccessToken("alice", nil)
		accepted(t, a, token)
		time.Sleep(20 * time.Second)
		accepted(t, a, token)
		require.Equal(t, 1, known.reads)
	})
}

// claimsOf returns the fewest claims that are accepted.
func claimsOf(sub string) map[string]any {
	return map[string]any{
		"iss": issuerURL, "sub": sub, "client_id": clientID, "token_use": "access",
		"exp": time.Now().Add(24 * time.Hour).Unix(),
	}
}

// The set is fetched in the background, at intervals that vary by a tenth.
func TestKeys_Refresh_Jitter(t *testing.T) {
	t.Parallel()
	issuer := oidctest.New(issuerURL, clientID, nil)
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var times []time.Time
		open(t, issuer, oidcauth.Options{KeysRefresh: 10 * time.Minute, HTTPClient: answerer(func(r *http.Request) (*http.Response, error) {
			mu.Lock()
			defer mu.Unlock()
			times = append(times, time.Now())
			return issuer.Client().Transport.RoundTrip(r)
		}).client()})
		time.Sleep(5 * time.Hour)
		mu.Lock()
		defer mu.Unlock()
		require.GreaterOrEqual(t, len(times), 31)
		gaps := map[time.Duration]bool{}
		for i := range times[1:] {
			gap := times[i+1].Sub(times[i])
			require.GreaterOrEqual(t, gap, 9*time.Minute)
			require.LessOrEqual(t, gap, 10*time.Minute)
			gaps[gap] = true
		}
		require.Greater(t, len(gaps), 1)
	})
}

// What is not 200 with a set of keys of a bounded size, in time, is a failed fetch:
// 503, and the reason goes to KeysFailed.
func TestKeys_FailedFetch(t *testing.T) {
	t.Parallel()
	good := jwks(t, jwk(t, nil))
	for _, tt := range []struct {
		name string
		resp func(r *http.Request) (*http.Response, error)
		want string
	}{
		{"status 500", func(*http.Request) (*http.Response, error) { return answer(500, good), nil }, "status 500"},
		{"status 204", func(*http.Request) (*http.Response, error) { return answer(204, ""), nil }, "status 204"},
		{"redirect", func(r *http.Request) (*http.Response, error) {
			if r.URL.Host == "elsewhere.example" {
				return answer(200, good), nil
			}
			resp := answer(302, "")
			resp.Header.Set("Location", "https://elsewhere.example/keys")
			return resp, nil
		}, "status 302"},
		{"no answer", func(*http.Request) (*http.Response, error) { return nil, errors.New("no route to host") }, "no route to host"},
		{"no answer in time", func(r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			return nil, r.Context().Err()
		}, "deadline exceeded"},
		{"body breaks off", func(*http.Request) (*http.Response, error) {
			resp := answer(200, "")
			resp.Body = io.NopCloser(io.MultiReader(strings.NewReader(good[:100]), errReader{}))
			return resp, nil
		}, "connection reset"},
		{"too long", func(*http.Request) (*http.Response, error) {
			return answer(200, good+strings.Repeat(" ", 256<<10)), nil
		}, "more than 262144 bytes"},
		{"not JSON", func(*http.Request) (*http.Response, error) { return answer(200, "<html>"), nil }, "not a JSON object with an array of keys"},
		{"no keys", func(*http.Request) (*http.Response, error) { return answer(200, `{}`), nil }, "not a JSON object with an array of keys"},
		{"KEYS for keys", func(*http.Request) (*http.Response, error) {
			return answer(200, strings.Replace(good, `"keys"`, `"KEYS"`, 1)), nil
		}, "not a JSON object with an array of keys"},
		{"keys null", func(*http.Request) (*http.Response, error) { return answer(200, `{"keys":null}`), nil }, "not a JSON object with an array of keys"},
		{"keys an object", func(*http.Request) (*http.Response, error) { return answer(200, `{"keys":{}}`), nil }, "not a JSON object with an array of keys"},
		{"an array", func(*http.Request) (*http.Response, error) { return answer(200, `[]`), nil }, "not a JSON object with an array of keys"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				failed := make(chan error, 10)
				a := open(t, shared(), oidcauth.Options{
					HTTPClient: answerer(tt.resp).client(),
					KeysFailed: func(err error) { failed <- err },
				})
				start := time.Now()
				unavailable(t, a, shared().AccessToken("alice", nil), tt.want)
				require.LessOrEqual(t, time.Since(start), 5*time.Second)
				require.ErrorContains(t, <-failed, tt.want)
			})
		})
	}
}

type errReader struct{}

func (errReader) Read([]byte) (int, error) { return 0, errors.New("connection reset") }

// One caller that goes away fails nobody else, and is told that nobody can tell.
func TestKeys_CallerGoesAway(t *testing.T) {
	t.Parallel()
	issuer := oidctest.New(issuerURL, clientID, nil)
	synctest.Test(t, func(t *testing.T) {
		a := open(t, issuer, oidcauth.Options{HTTPClient: slow(issuer, 3*time.Second)})
		token := issuer.AccessToken("alice", nil)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var wg sync.WaitGroup
		wg.Go(func() {
			_, err := a.Authenticate(bearer(token).WithContext(ctx))
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.NotErrorIs(t, err, middleware.ErrInvalidCredential)
		})
		wg.Go(func() { accepted(t, a, token) })
		wg.Wait()
		require.Equal(t, 1, issuer.Fetches())
	})
}

// Close ends a fetch that is under way, and every goroutine: the bubble would not
// end otherwise. What is known is judged on; nothing is fetched.
func TestAuthenticator_Close(t *testing.T) {
	t.Parallel()
	issuer := oidctest.New(issuerURL, clientID, nil)
	synctest.Test(t, func(t *testing.T) {
		a := open(t, issuer, oidcauth.Options{})
		synctest.Wait()
		require.NoError(t, a.Close())
		require.NoError(t, a.Close())
		require.Zero(t, fetches(issuer, func() {
			accepted(t, a, issuer.AccessToken("alice", nil))
			unavailable(t, a, unknown(0), "is closed")
			time.Sleep(time.Hour)
		}))
	})
	synctest.Test(t, func(t *testing.T) {
		a := open(t, issuer, oidcauth.Options{
			HTTPClient: slow(issuer, time.Minute),
			KeysFailed: func(err error) { t.Errorf("the end of a fetch by Close is no failure: %v", err) },
		})
		start := time.Now()
		var wg sync.WaitGroup
		wg.Go(func() { unavailable(t, a, unknown(0), "canceled") })
		synctest.Wait()
		require.NoError(t, a.Close())
		wg.Wait()
		require.Zero(t, time.Since(start))
	})
}

// A clock that is set back does not lengthen the pause.
func TestKeys_ClockStepsBack(t *testing.T) {
	t.Parallel()
	issuer := oidctest.New(issuerURL, clientID, nil)
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var back time.Duration
		a := open(t, issuer, oidcauth.Options{Now: func() time.Time {
			mu.Lock()
			defer mu.Unlock()
			return time.Now().Add(-back).Round(0) // without the monotonic reading
		}})
		synctest.Wait()
		require.Equal(t, 1, fetches(issuer, func() { refused(t, a, unknown(0), "kid is unknown") }))
		mu.Lock()
		back = time.Hour
		mu.Unlock()
		require.Equal(t, 1, fetches(issuer, func() { refused(t, a, unknown(0), "kid is unknown") }))
		require.Zero(t, fetches(issuer, func() { refused(t, a, unknown(0), "kid is unknown") }))
	})
}

// The same over a real connection: the address, the header, and no redirect.
func TestKeys_OverHTTP(t *testing.T) {
	t.Parallel()
	server := httptest.NewUnstartedServer(nil)
	url := "http://" + server.Listener.Addr().String() + "/pool"
	issuer := oidctest.New(url, clientID, nil)
	server.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/moved":
			http.Redirect(w, r, url+"/.well-known/jwks.json", http.StatusFound)
		case r.URL.Path != "/pool/.well-known/jwks.json" || !strings.Contains(r.Header.Get("Accept"), "application/json"):
			http.NotFound(w, r)
		default:
			issuer.ServeHTTP(w, r)
		}
	})
	server.Start()
	t.Cleanup(server.Close)
	follow := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return nil }}
	for _, tt := range []struct {
		name string
		opts oidcauth.Options
		want string
	}{
		{"default", oidcauth.Options{}, ""},
		{"client of the host", oidcauth.Options{HTTPClient: follow}, ""},
		{"redirect", oidcauth.Options{HTTPClient: follow, JWKSURL: strings.TrimSuffix(url, "/pool") + "/moved"}, "status 302"},
	} {
		a, err := oidcauth.New(url, []string{clientID}, &tt.opts)
		require.NoError(t, err)
		t.Cleanup(func() { a.Close() })
		if tt.want == "" {
			accepted(t, a, issuer.AccessToken("alice", nil))
		} else {
			unavailable(t, a, issuer.AccessToken("alice", nil), tt.want)
		}
	}
	require.NoError(t, follow.CheckRedirect(nil, nil), "the client of the host is left as it is")
}
