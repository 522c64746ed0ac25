package itest

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// buildService builds the example once for all tests.
var buildService = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "service")
	if err != nil {
		return "", err
	}
	binary := filepath.Join(dir, "service")
	cmd := exec.Command("go", "build", "-o", binary, "./service")
	cmd.Dir = filepath.Join("..", "..", "examples")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return binary, nil
})

// A service is a running examples/service.
type service struct {
	tb   testing.TB
	cmd  *exec.Cmd
	base string    // http://host:port
	err  io.Closer // our end of standard error
	done chan struct{}

	mu    sync.Mutex
	read  *sync.Cond                // something of standard output was read, or it has ended
	out   strings.Builder           // standard output
	log   strings.Builder           // standard error
	lines map[string]serviceKeyLine // of the bootstrap, by ref
	ended bool
	seen  strings.Builder // every answer, without the token that a 201 shows once
}

type serviceKeyLine struct{ Ref, Prefix, Token string }

var servingPattern = regexp.MustCompile(`serving on (http://\S+)`)

// startService runs the example until the test ends.
func startService(t *testing.T, args ...string) *service {
	t.Helper()
	binary, err := buildService()
	require.NoError(t, err)
	s := &service{tb: t, done: make(chan struct{}), lines: make(map[string]serviceKeyLine)}
	s.read = sync.NewCond(&s.mu)
	s.cmd = exec.Command(binary, append([]string{"-addr", "127.0.0.1:0"}, args...)...)
	s.cmd.Dir = t.TempDir()
	stdout, err := s.cmd.StdoutPipe()
	require.NoError(t, err)
	stderr, err := s.cmd.StderrPipe()
	require.NoError(t, err)
	s.err = stderr
	require.NoError(t, s.cmd.Start())
	t.Cleanup(func() { _ = s.cmd.Process.Kill(); <-s.done; _ = s.cmd.Wait() })
	ready := make(chan string, 1)
	var reading sync.WaitGroup
	reading.Go(func() {
		for lines := bufio.NewScanner(stdout); lines.Scan(); {
			var line serviceKeyLine
			s.mu.Lock()
			s.out.WriteString(lines.Text() + "\n")
			if json.Unmarshal(lines.Bytes(), &line) == nil && line.Ref != "" {
				s.lines[line.Ref] = line
			}
			s.mu.Unlock()
			s.read.Broadcast()
		}
		s.mu.Lock()
		s.ended = true
		s.mu.Unlock()
		s.read.Broadcast()
	})
	reading.Go(func() {
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			s.mu.Lock()
			s.log.WriteString(lines.Text() + "\n")
			s.mu.Unlock()
			if found := servingPattern.FindStringSubmatch(lines.Text()); found != nil {
				ready <- found[1]
			}
		}
	})
	go func() { reading.Wait(); close(s.done) }()
	select {
	case s.base = <-ready:
	case <-s.done:
		require.FailNow(t, "the service ended", s.log.String())
	}
	return s
}

// stop sends Ctrl-C and requires a clean end.
func (s *service) stop() {
	s.tb.Helper()
	require.NoError(s.tb, s.cmd.Process.Signal(os.Interrupt))
	<-s.done
	require.NoError(s.tb, s.cmd.Wait())
}

// key returns the line that was printed of a key of the bootstrap. The line was
// printed before the service said that it serves, but may not have been read yet.
func (s *service) key(ref string) serviceKeyLine {
	s.tb.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.lines[ref].Ref == "" && !s.ended {
		s.read.Wait()
	}
	require.Contains(s.tb, s.lines, ref)
	return s.lines[ref]
}

// jwt returns an access token of a person, from the development issuer.
func (s *service) jwt(user string) string {
	s.tb.Helper()
	response, err := http.Get(s.base + "/dev/token/" + user)
	require.NoError(s.tb, err)
	defer response.Body.Close()
	require.Equal(s.tb, 200, response.StatusCode, user)
	token, err := io.ReadAll(response.Body)
	require.NoError(s.tb, err)
	return string(token)
}

// A reply is an answer of the service.
type reply struct {
	status int
	header http.Header
	body   string
	json   map[string]any
}

// data returns a member of data, which may be nested.
func (r reply) data(path ...string) any {
	v := r.json["data"]
	for _, name := range path {
		m, _ := v.(map[string]any)
		v = m[name]
	}
	return v
}

// reason returns error.reason.
func (r reply) reason() string {
	e, _ := r.json["error"].(map[string]any)
	reason, _ := e["reason"].(string)
	return reason
}

// do sends a request with a credential: a token or JWT as Bearer, or "email token"
// as the pair, or nothing.
func (s *service) do(method, path, credential string, body any, header ...string) reply {
	s.tb.Helper()
	var content io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		require.NoError(s.tb, err)
		content = bytes.NewReader(text)
	}
	r, err := http.NewRequest(method, s.base+path, content)
	require.NoError(s.tb, err)
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	if email, token, ok := strings.Cut(credential, " "); ok {
		r.Header.Set("x-api-user", email)
		r.Header.Set("x-api-token", token)
	} else if credential != "" {
		r.Header.Set("Authorization", "Bearer "+credential)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	response, err := client.Do(r)
	require.NoError(s.tb, err)
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	require.NoError(s.tb, err)
	got := reply{status: response.StatusCode, header: response.Header, body: string(text)}
	_ = json.Unmarshal(text, &got.json)
	shown := got.body
	if got.status == http.StatusCreated {
		token, ok := got.data("key").(string)
		if !ok {
			token, ok = got.json["token"].(string)
		}
		require.True(s.tb, ok, "a creation without a token")
		shown = strings.Replace(shown, token, "", 1)
	}
	s.mu.Lock()
	fmt.Fprintln(&s.seen, got.header, shown)
	s.mu.Unlock()
	return got
}

// require sends a request and requires a status.
func (s *service) require(status int, method, path, credential string, body any, header ...string) reply {
	s.tb.Helper()
	got := s.do(method, path, credential, body, header...)
	require.Equal(s.tb, status, got.status, "%s %s: %s", method, path, got.body)
	return got
}

// ping uses a key and returns the status and the reason.
func (s *service) ping(credential string) (int, string) {
	s.tb.Helper()
	got := s.do("GET", "/v1/ping", credential, nil)
	return got.status, got.reason()
}

// settings changes settings of an organization by its owner.
func (s *service) settings(owner string, change map[string]any) reply {
	s.tb.Helper()
	etag := s.require(200, "GET", "/v1/org/token-settings", owner, nil).header.Get("ETag")
	return s.require(200, "PATCH", "/v1/org/token-settings", owner, change, "If-Match", etag)
}

// create makes a key by the API and returns its token and prefix.
func (s *service) create(person string, body map[string]any) (token, prefix string) {
	s.tb.Helper()
	got := s.require(201, "POST", "/v1/api-keys", person, body)
	require.Equal(s.tb, "no-store", got.header.Get("Cache-Control"))
	return got.data("key").(string), got.data("prefix").(string)
}

// A serviceStore is a store that the example is tested on.
type serviceStore struct {
	args  []string
	bytes func() [][]byte // all that it keeps
}

// serviceStores make them, each a new one.
var serviceStores = map[string]func(t *testing.T) serviceStore{
	"memory": func(*testing.T) serviceStore {
		return serviceStore{bytes: func() [][]byte { return nil }}
	},
	"sqlite": func(t *testing.T) serviceStore {
		file := filepath.Join(t.TempDir(), "service.db")
		return serviceStore{[]string{"-store", "sqlite:" + file}, func() (all [][]byte) {
			for _, name := range []string{file, file + "-wal"} {
				content, err := os.ReadFile(name)
				if name != file && errors.Is(err, os.ErrNotExist) {
					continue // a log that was written back
				}
				require.NoError(t, err)
				all = append(all, content)
			}
			return all
		}}
	},
	"postgres": func(t *testing.T) serviceStore {
		return newPostgresServiceStore(t)
	},
	"postgres and redis": func(t *testing.T) serviceStore {
		store := newPostgresServiceStore(t)
		r := startRedis(t)
		kept := store.bytes
		store.args = append(store.args, "-redis", r.URL())
		store.bytes = func() [][]byte {
			client := openRedis(t, r.URL())
			counts, err := client.Keys(t.Context(), "*").Result()
			require.NoError(t, err)
			require.NotEmpty(t, counts, "counted in Redis")
			all := kept()
			for _, name := range counts {
				all[0] = append(all[0], name...)
				value, err := client.Dump(t.Context(), name).Result()
				require.NoError(t, err)
				all[0] = append(all[0], value...)
			}
			return all
		}
		return store
	},
}

func newPostgresServiceStore(t *testing.T) serviceStore {
	t.Helper()
	dsn, schema := newSchema(t)
	return serviceStore{[]string{"-store", postgresURL(dsn)}, func() [][]byte {
		dump, err := postgres(t).Program("pg_dump", "--schema", schema).Output()
		require.NoError(t, err)
		return [][]byte{dump}
	}}
}

const serviceBootstrap = `{"orgs":[
 {"name":"acme","users":[
  {"id":"ann","email":"ann@acme.example","role":"owner","tier":"Enterprise","keys":[{"ref":"ann","name":"ann's"}]},
  {"id":"bob","email":"bob@acme.example","role":"user","tier":"Pro","keys":[
   {"ref":"old","name":"sixty days old","createdAt":"SIXTY"},
   {"ref":"three","name":"three a day","dailyLimit":3},
   {"ref":"gone","name":"revoked","revoked":true},
   {"ref":"off","name":"disabled","disabled":true},
   {"ref":"late","name":"expired","createdAt":"SIXTY","expiresAt":"YESTERDAY"}]},
  {"id":"cid","email":"cid@acme.example","role":"admin","tier":"Team","permitted":true,"keys":[{"ref":"cid","name":"granted"}]},
  {"id":"dee","email":"dee@acme.example","role":"observer","tier":"Free"}]},
 {"name":"zeta","settings":{"restrictedAccessTokens":false,"apiTokenMaxAge":0,"apiAllowedIPs":["10.0.0.0/8","# office"]},"users":[
  {"id":"zoe","email":"zoe@zeta.example","role":"owner","tier":"Pro","keys":[{"ref":"zoe","name":"elsewhere"}]}]}]}`

// writeBootstrap writes the bootstrap of the tests and returns the file.
func writeBootstrap(t *testing.T) string { return writeBootstrapWith(t, "") }

// writeBootstrapWith is writeBootstrap with more users of acme, each with a comma
// behind.
func writeBootstrapWith(t *testing.T, users string) string {
	t.Helper()
	text := strings.Replace(serviceBootstrap, `"users":[`, `"users":[`+users, 1)
	text = strings.NewReplacer("SIXTY", daysAgo(60), "YESTERDAY", daysAgo(1)).Replace(text)
	file := filepath.Join(t.TempDir(), "bootstrap.json")
	require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	return file
}

// TestServiceLifeCycle walks the life of keys in both source documents over HTTP,
// against the example as a process of its own, on each store.
func TestServiceLifeCycle(t *testing.T) {
	t.Parallel()
	for name, newStore := range serviceStores {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store := newStore(t)
			trail := filepath.Join(t.TempDir(), "audit.log")
			args := append([]string{"-dev", "-bootstrap", writeBootstrap(t), "-audit", trail}, store.args...)
			s := startService(t, args...)
			ann, bob := s.jwt("ann"), s.jwt("bob")
			var secrets []string
			for _, ref := range []string{"ann", "old", "three", "gone", "off", "late", "cid", "zoe"} {
				secrets = append(secrets, s.key(ref).Token)
			}

			// What the file says of keys holds.
			for ref, want := range map[string]string{
				"ann": "200 ", "old": "200 ", "three": "200 ", "cid": "200 ", "gone": "401 invalid_token",
				"off": "403 key_disabled", "late": "401 expired", "zoe": "403 address_not_allowed",
			} {
				status, reason := s.ping(s.key(ref).Token)
				require.Equal(t, want, fmt.Sprint(status, " ", reason), ref)
			}
			status, _ := s.ping("bob@acme.example " + s.key("old").Token)
			require.Equal(t, 200, status, "S2, D34")
			status, _ = s.ping(bob)
			require.Equal(t, 200, status, "S52")

			// S56-S59: create, shown once, use, list, revoke. bob has four keys that
			// count: the expired and the disabled one are among them (D10).
			made, prefix := s.create(bob, map[string]any{"name": "CI"})
			secrets = append(secrets, made)
			status, _ = s.ping(made)
			require.Equal(t, 200, status)
			list := s.require(200, "GET", "/v1/api-keys", bob, nil)
			require.Contains(t, list.body, prefix)
			sixth := s.require(409, "POST", "/v1/api-keys", bob, map[string]any{"name": "sixth"})
			require.Contains(t, sixth.body, "TokenLimitReached", "S12, D9")
			require.Contains(t, sixth.body, "5")
			s.require(404, "DELETE", "/v1/api-keys/"+s.key("ann").Prefix, bob, nil) // S20
			s.require(404, "DELETE", "/v1/api-keys/"+made, bob, nil)                // D28
			s.require(200, "DELETE", "/v1/api-keys/"+prefix, bob, nil)
			status, reason := s.ping(made)
			require.Equal(t, "401 invalid_token", fmt.Sprint(status, " ", reason), "S19")
			s.require(404, "DELETE", "/v1/api-keys/"+prefix, bob, nil)

			// D39: a rotation, and a key by the API of the other source.
			first, prefix := s.create(bob, map[string]any{"name": "rotated"})
			rotated := s.require(201, "POST", "/v1/api-keys/"+prefix+"/rotate", bob, map[string]any{"grace": 3600}).data("key").(string)
			for _, token := range []string{first, rotated} {
				secrets = append(secrets, token)
				s.require(200, "GET", "/v1/ping", token, nil)
				s.require(200, "DELETE", "/v1/api-keys/"+token[:17], bob, nil)
				s.require(401, "GET", "/v1/ping", token, nil)
			}
			corps := s.require(201, "POST", "/api/v0/user/apitokens", bob, map[string]any{"name": "corp"}).json["token"].(string)
			secrets = append(secrets, corps)
			s.require(204, "DELETE", "/api/v0/user/apitokens/"+corps[:17], bob, nil)
			// What a client says of itself is in the trail, if it is refused.
			s.require(401, "GET", "/v1/ping", corps, nil, "User-Agent", "x "+corps)

			// S61-S63: the quota of a key.
			for range 2 {
				s.require(200, "GET", "/v1/ping", s.key("three").Token, nil)
			}
			over := s.require(429, "GET", "/v1/ping", s.key("three").Token, nil)
			require.Contains(t, over.body, "RateLimitExceeded")
			require.NotEmpty(t, over.header.Get("Retry-After"))
			usage := s.require(200, "GET", "/v1/usage", s.key("three").Token, nil)
			require.EqualValues(t, 3, usage.data("used"))
			require.EqualValues(t, 3, usage.data("limit"))

			// S54: the tier; S60: keys manage nothing.
			s.require(403, "POST", "/v1/api-keys", s.jwt("dee"), map[string]any{"name": "free"})
			s.require(403, "POST", "/v1/api-keys", s.key("old").Token, map[string]any{"name": "by key"})
			s.require(403, "GET", "/v1/api-keys", s.key("old").Token, nil)

			// S35-S41: 60 days, 30 days, 90 days.
			s.settings(ann, map[string]any{"apiTokenMaxAge": 30 * 86400})
			status, reason = s.ping(s.key("old").Token)
			require.Equal(t, "401 expired", fmt.Sprint(status, " ", reason))
			s.settings(ann, map[string]any{"apiTokenMaxAge": 90 * 86400})
			status, _ = s.ping(s.key("old").Token)
			require.Equal(t, 200, status)
			status, _ = s.ping(s.key("late").Token)
			require.Equal(t, 401, status, "D23: its own end stays")
			s.settings(ann, map[string]any{"apiTokenMaxAge": 0})

			// S21-S34: restriction, owners not exempt, grants remembered.
			s.settings(ann, map[string]any{"restrictedAccessTokens": true})
			for ref, want := range map[string]int{"ann": 403, "old": 403, "cid": 200} {
				status, _ := s.ping(s.key(ref).Token)
				require.Equal(t, want, status, ref)
			}
			s.require(403, "POST", "/v1/api-keys", bob, map[string]any{"name": "restricted"})
			s.require(403, "PUT", "/v1/org/users/bob/token-permission", s.jwt("cid"), nil) // S30
			s.require(200, "PUT", "/v1/org/users/bob/token-permission", ann, nil)
			status, _ = s.ping(s.key("old").Token)
			require.Equal(t, 200, status, "S28")
			s.settings(ann, map[string]any{"restrictedAccessTokens": false})
			s.settings(ann, map[string]any{"restrictedAccessTokens": true})
			status, _ = s.ping(s.key("old").Token)
			require.Equal(t, 200, status, "S32")
			s.settings(ann, map[string]any{"restrictedAccessTokens": false})

			// S43-S46, S24: the allowlist; one bad line changes nothing and is named.
			s.settings(ann, map[string]any{"apiAllowedIPs": []string{"10.0.0.0/8"}})
			status, reason = s.ping(s.key("ann").Token)
			require.Equal(t, "403 address_not_allowed", fmt.Sprint(status, " ", reason))
			etag := s.require(200, "GET", "/v1/org/token-settings", ann, nil).header.Get("ETag")
			bad := s.require(400, "PATCH", "/v1/org/token-settings", ann,
				map[string]any{"apiTokenMaxAge": 1, "apiAllowedIPs": []string{"127.0.0.1", "10.0.0.256"}}, "If-Match", etag)
			require.Contains(t, bad.body, "apiAllowedIPs")
			require.Contains(t, bad.body, "2", "the line")
			status, _ = s.ping(s.key("ann").Token)
			require.Equal(t, 403, status)
			s.settings(ann, map[string]any{"apiAllowedIPs": []string{}})
			status, _ = s.ping(s.key("ann").Token)
			require.Equal(t, 200, status)

			// S47-S51: the owner's table.
			table := s.require(200, "GET", "/v1/org/api-keys", ann, nil)
			for _, want := range []string{"active", "expired", "disabled_by_owner", "bob@acme.example"} {
				require.Contains(t, table.body, want)
			}
			s.require(403, "GET", "/v1/org/api-keys", bob, nil)

			s.stop()
			for _, secret := range secrets {
				digest := sha256.Sum256([]byte(secret))
				for _, form := range []string{hex.EncodeToString(digest[:8]), base64.StdEncoding.EncodeToString(digest[:9])} {
					require.NotContains(t, s.seen.String()+s.log.String()+s.out.String(), form, "a digest was shown")
				}
				require.NotContains(t, s.seen.String()+s.log.String(), secret[17:], "S16: a token was shown again")
				audited, err := os.ReadFile(trail)
				require.NoError(t, err)
				require.NotEmpty(t, audited)
				require.NotContains(t, string(audited), secret[17:])
				for _, content := range store.bytes() {
					require.Contains(t, string(content), secret[:17], "the prefix is there")
					require.NotContains(t, string(content), secret[17:], "S16, S71")
				}
			}
		})
	}
}

// TestServiceParallelCreations: S13: 50 creations at once through HTTP leave
// exactly five keys, and say so to the other 45.
func TestServiceParallelCreations(t *testing.T) {
	t.Parallel()
	for name, newStore := range serviceStores {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := startService(t, append([]string{"-dev"}, newStore(t).args...)...)
			user := s.jwt("demo-user")
			counts := make(map[int]int)
			var mu sync.Mutex
			var wg sync.WaitGroup
			for range 50 {
				wg.Go(func() {
					got := s.do("POST", "/v1/api-keys", user, map[string]any{"name": "parallel"})
					mu.Lock()
					counts[got.status]++
					mu.Unlock()
				})
			}
			wg.Wait()
			require.Equal(t, map[int]int{201: 5, 409: 45}, counts)
			keys := s.require(200, "GET", "/v1/api-keys", user, nil).data("keys").([]any)
			require.Len(t, keys, 5)
		})
	}
}

// TestServiceReplacedKeys: on every store as many replaced keys as the cap work at a
// time (S12, D39), however often a key is rotated.
func TestServiceReplacedKeys(t *testing.T) {
	t.Parallel()
	for name, newStore := range serviceStores {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := startService(t, append([]string{"-dev"}, newStore(t).args...)...)
			user := s.jwt("demo-user")
			token, prefix := s.create(user, map[string]any{"name": "x"})
			tokens := []string{token}
			for range 5 {
				got := s.require(201, "POST", "/v1/api-keys/"+prefix+"/rotate", user, map[string]any{"grace": 3600})
				prefix = got.data("prefix").(string)
				tokens = append(tokens, got.data("key").(string))
			}
			s.require(409, "POST", "/v1/api-keys/"+prefix+"/rotate", user, map[string]any{"grace": 3600})
			for _, token := range tokens {
				s.require(200, "GET", "/v1/ping", token, nil)
			}
			s.require(201, "POST", "/v1/api-keys/"+prefix+"/rotate", user, nil)
			s.require(401, "GET", "/v1/ping", tokens[5], nil)
		})
	}
}

// TestServiceBootstrapTwice: the same file again duplicates nothing, shows no
// token again, and leaves alone what people have changed.
func TestServiceBootstrapTwice(t *testing.T) {
	t.Parallel()
	args := []string{"-dev", "-bootstrap", writeBootstrap(t), "-store", "sqlite:" + filepath.Join(t.TempDir(), "s.db")}
	s := startService(t, args...)
	first := s.key("old")
	require.NotEmpty(t, first.Token)
	s.settings(s.jwt("ann"), map[string]any{"apiTokenMaxAge": 30 * 86400})
	before := s.require(200, "GET", "/v1/api-keys", s.jwt("bob"), nil)
	s.stop()

	s = startService(t, args...)
	require.Equal(t, serviceKeyLine{Ref: "old", Prefix: first.Prefix}, s.key("old"))
	require.NotContains(t, s.out.String(), "token")
	after := s.require(200, "GET", "/v1/api-keys", s.jwt("bob"), nil)
	require.Equal(t, before.data("keys"), after.data("keys"))
	status, reason := s.ping(first.Token)
	require.Equal(t, "401 expired", fmt.Sprint(status, " ", reason))
	s.stop()
}

// TestServiceBadInput: every mistake in flags and file is named, and nothing is
// served.
func TestServiceBadInput(t *testing.T) {
	t.Parallel()
	binary, err := buildService()
	require.NoError(t, err)
	write := func(text string) string {
		file := filepath.Join(t.TempDir(), "b.json")
		require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
		return file
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = taken.Close() }) // when the rows are over
	for _, test := range []struct {
		name string
		args []string
		want []string
	}{
		{"address in use", []string{"-addr", taken.Addr().String(), "-store", "sqlite:s.db"}, []string{"-addr: "}},
		{"missing directory", []string{"-store", "sqlite:" + filepath.Join("missing", "s.db")}, []string{"-store: open " + filepath.Join("missing", "s.db") + ": no such"}},
		{"issuer without client", []string{"-issuer", "https://a.example"}, []string{"-client-id"}},
		{"dev and issuer", []string{"-dev", "-issuer", "https://a.example", "-client-id", "x"}, []string{"-dev"}},
		{"dev on every address", []string{"-dev", "-addr", "0.0.0.0:0"}, []string{"loopback"}},
		{"dev without access tokens", []string{"-dev", "-token-use", "id,unstated"}, []string{"-token-use"}},
		{"plain http issuer", []string{"-issuer", "http://a.example", "-client-id", "x"}, []string{"-issuer must be an https address"}},
		{"no issuer", []string{"-issuer", "a.example", "-client-id", "x"}, []string{"-issuer must be an https address"}},
		{"plain http keys", []string{"-issuer", "https://a.example", "-client-id", "x", "-jwks-url", "http://a.example"}, []string{"JWKSURL"}},
		{"store", []string{"-store", "tape"}, []string{"-store"}},
		{"limit", []string{"-default-limit", "0"}, []string{"-default-limit"}},
		{"proxies without header", []string{"-trusted-proxies", "10.0.0.1"}, []string{"-client-ip-header"}},
		{"bad proxy", []string{"-trusted-proxies", "10.0.0.300", "-client-ip-header", "X-Forwarded-For"}, []string{"-trusted-proxies", "line 1"}},
		{"two mistakes", []string{"-store", "memory", "-default-limit", "0", "-client-id", "x"}, []string{"-default-limit", "-issuer"}},
		{"keys without issuer", []string{"-jwks-url", "https://a.example"}, []string{"-issuer"}},
		{"token use", []string{"-token-use", "access,refresh"}, []string{"-token-use"}},
		{"no Redis", []string{"-redis", "unix:///nowhere/socket"}, []string{"-redis"}},
		{"no URL of Redis", []string{"-redis", "redis:secret@host"}, []string{"-redis"}},
		{"no URL of PostgreSQL", []string{"-store", "postgres://user:secret@host:port/"}, []string{"-store"}},
		{"no file", []string{"-bootstrap", "nowhere.json"}, []string{"nowhere.json"}},
		{"unknown member", []string{"-bootstrap", write(`{"orgs":[{"nick":"x"}]}`)}, []string{"nick"}},
		{"member in another case", []string{"-bootstrap", write(`{"orgs":[{"Name":"x"}]}`)}, []string{"orgs[0]", `"Name"`}},
		{"member twice", []string{"-bootstrap", write(`{"orgs":[{"name":"x","users":[{"id":"u","role":"user","role":"owner"}]}]}`)}, []string{"orgs[0].users[0]", `"role" twice`}},
		{"limit of 0", []string{"-bootstrap", write(`{"orgs":[{"name":"x","users":[{"id":"u","role":"user","keys":[{"ref":"1","name":"1","dailyLimit":0}]}]}]}`)}, []string{"keys[0].dailyLimit"}},
		{"type", []string{"-bootstrap", write(`{"orgs":[{"name":"x","users":[{"id":"u","role":"user","permitted":"yes"}]}]}`)}, []string{"orgs[0].users[0].permitted", "true or false"}},
		{"time", []string{"-bootstrap", write(`{"orgs":[{"name":"x","users":[{"id":"u","role":"user","keys":[{"ref":"1","name":"1","createdAt":"yesterday"}]}]}]}`)}, []string{"keys[0].createdAt", "time"}},
		{"no array", []string{"-bootstrap", write(`{"orgs":{}}`)}, []string{"orgs must be an array"}},
		{"no object", []string{"-bootstrap", write(`[]`)}, []string{"must be a JSON object"}},
		{"empty", []string{"-bootstrap", write(``)}, []string{"must be a JSON object"}},
		{"null", []string{"-bootstrap", write(`null`)}, []string{"must be a JSON object"}},
		{"null in an array", []string{"-bootstrap", write(`{"orgs":[null]}`)}, []string{"orgs[0] is null"}},
		{"broken off", []string{"-bootstrap", write(`{"orgs":[{"name":"x"`)}, []string{"JSON"}},
		{"text after", []string{"-bootstrap", write(`{"orgs":[]} {}`)}, []string{"after"}},
		{"role", []string{"-bootstrap", write(`{"orgs":[{"name":"x","users":[{"id":"u","role":"king"}]}]}`)}, []string{"users[0].role"}},
		{"two people of one ID", []string{"-bootstrap", write(`{"orgs":[{"name":"x","users":[{"id":"u","role":"user"}]},{"name":"y","users":[{"id":"u","role":"user"}]}]}`)}, []string{"users[0].id"}},
		{"address", []string{"-bootstrap", write(`{"orgs":[{"name":"x","settings":{"apiAllowedIPs":["1.2.3"]}}]}`)}, []string{"apiAllowedIPs"}},
		{"six keys", []string{"-bootstrap", write(`{"orgs":[{"name":"x","users":[{"id":"u","role":"user","keys":[
			{"ref":"1","name":"1"},{"ref":"2","name":"2"},{"ref":"3","name":"3"},{"ref":"4","name":"4"},{"ref":"5","name":"5"},{"ref":"6","name":"6"}]}]}]}`)}, []string{"orgs[0].users[0].keys", `"u"`, "5"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			cmd := exec.CommandContext(t.Context(), binary, append([]string{"-addr", "127.0.0.1:0"}, test.args...)...)
			cmd.Dir = t.TempDir()
			out, err := cmd.CombinedOutput()
			_, failed := errors.AsType[*exec.ExitError](err)
			require.True(t, failed, string(out))
			for _, want := range test.want {
				require.Contains(t, string(out), want)
			}
			require.NotContains(t, string(out), "serving")
			require.NotContains(t, string(out), "secret", "a password")
			require.NotContains(t, string(out), `{"ref"`, "nothing was made")
			left, err := os.ReadDir(cmd.Dir)
			require.NoError(t, err)
			require.Empty(t, left)
		})
	}
}

// TestServiceOwnerTakenOut: who is taken out of the bootstrap file is a plain user
// from then on, and what a sign-in has changed is kept.
func TestServiceOwnerTakenOut(t *testing.T) {
	t.Parallel()
	store := serviceStores["sqlite"](t)
	s := startService(t, append([]string{"-dev", "-bootstrap", writeBootstrap(t)}, store.args...)...)
	s.require(200, "GET", "/v1/org/users", s.jwt("ann"), nil)
	s.stop()

	// ann is not in the file any more. The development issuer knows only who is, so
	// this file has one of the same ID elsewhere, without being an owner.
	file := filepath.Join(t.TempDir(), "b.json")
	require.NoError(t, os.WriteFile(file, []byte(`{"orgs":[{"name":"acme","users":[{"id":"ann","email":"","role":"user"}]}]}`), 0o600))
	s = startService(t, append([]string{"-dev", "-bootstrap", file}, store.args...)...)
	s.require(403, "GET", "/v1/org/users", s.jwt("ann"), nil)
	require.Contains(t, s.require(200, "GET", "/api/v0/corps/acme/users", s.jwt("ann"), nil).body, "ann@acme.example")
}
