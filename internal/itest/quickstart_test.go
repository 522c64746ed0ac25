package itest

import (
	"bufio"
	"context"
	"database/sql"
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
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/store/sqlitestore"
)

// The examples, each built once for all tests.
var (
	buildQuickstart = sync.OnceValues(func() (string, error) { return buildExample("quickstart") })
	buildPostgres   = sync.OnceValues(func() (string, error) { return buildExample("postgres") })
)

// buildExample builds an example into a directory that goes when all tests are
// over.
func buildExample(name string) (string, error) {
	dir, err := os.MkdirTemp("", name)
	if err != nil {
		return "", err
	}
	whenOver(func() error { return os.RemoveAll(dir) })
	binary := filepath.Join(dir, name)
	cmd := exec.Command("go", "build", "-o", binary, "./"+name)
	cmd.Dir = filepath.Join("..", "..", "examples")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return binary, nil
}

// A quickstart is a running example.
type quickstart struct {
	tb    testing.TB
	cmd   *exec.Cmd
	usage string    // what was printed, up to the lines to paste
	token string    // empty if none was printed
	curls []string  // the lines to paste
	addr  string    // host:port
	out   io.Closer // our end of standard output
	log   printed   // standard error, whole when it has been stopped
	done  chan struct{}
}

// A printed keeps what a program prints, and can be read meanwhile.
type printed struct {
	mu   sync.Mutex
	text strings.Builder
}

func (p *printed) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.Write(b)
}

func (p *printed) String() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.String()
}

var (
	tokenPattern = regexp.MustCompile(`csk_live_[0-9a-f]{32}`)
	addrPattern  = regexp.MustCompile(`http://(127\.0\.0\.1:\d+)/`)
)

// startQuickstart runs the example in dir until the test ends, and returns when
// it has printed how to use it.
func startQuickstart(t testing.TB, dir string, args ...string) *quickstart {
	t.Helper()
	binary, err := buildQuickstart()
	require.NoError(t, err)
	cmd := exec.Command(binary, args...)
	cmd.Dir = dir
	return startExample(t, cmd)
}

// startExample is startQuickstart for every example that prints what the
// quickstart does.
func startExample(t testing.TB, cmd *exec.Cmd) *quickstart {
	t.Helper()
	q := &quickstart{tb: t, cmd: cmd, done: make(chan struct{})}
	q.cmd.Args = append(q.cmd.Args, "-addr", "127.0.0.1:0")
	q.cmd.Stderr = io.MultiWriter(os.Stderr, &q.log)
	pipe, err := q.cmd.StdoutPipe()
	require.NoError(t, err)
	q.out = pipe
	require.NoError(t, q.cmd.Start())
	t.Cleanup(func() { _ = q.cmd.Process.Kill(); <-q.done; _ = q.cmd.Wait() })
	ready := make(chan struct{})
	go func() {
		defer close(q.done)
		lines := bufio.NewScanner(pipe)
		for lines.Scan() {
			line := lines.Text()
			if len(q.curls) == 2 {
				continue // read to the end, so that the program does not wait
			}
			q.usage += line + "\n"
			if found := tokenPattern.FindString(line); found != "" {
				q.token = found
			}
			if strings.HasPrefix(strings.TrimSpace(line), "curl ") {
				q.curls = append(q.curls, strings.TrimSpace(line))
				if found := addrPattern.FindStringSubmatch(line); found != nil {
					q.addr = found[1]
				}
				if len(q.curls) == 2 {
					close(ready)
				}
			}
		}
	}()
	select {
	case <-ready:
	case <-q.done:
		require.FailNow(t, "the quickstart ended", q.usage)
	}
	return q
}

// stop sends Ctrl-C and returns the exit code.
func (q *quickstart) stop() int {
	q.tb.Helper()
	require.NoError(q.tb, q.cmd.Process.Signal(os.Interrupt))
	<-q.done
	return exitCode(q.tb, q.cmd.Wait())
}

// exitCode returns the exit code of a program that has ended with err.
func exitCode(t testing.TB, err error) int {
	t.Helper()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.ExitCode() // -1 if a signal has ended it
	}
	require.NoError(t, err)
	return 0
}

// refused runs an example that is to end by itself, and returns its exit code and
// what it has printed.
func refused(t testing.TB, dir, binary string, args ...string) (int, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	require.NotContains(t, string(out), "keystile on", "it serves")
	return exitCode(t, err), string(out)
}

// get asks a path with the token, as Bearer.
func (q *quickstart) get(path, token string) (int, string) {
	q.tb.Helper()
	r, err := http.NewRequestWithContext(q.tb.Context(), "GET", "http://"+q.addr+path, nil)
	require.NoError(q.tb, err)
	r.Header.Set("Authorization", "Bearer "+token)
	response, err := http.DefaultClient.Do(r)
	require.NoError(q.tb, err)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	require.NoError(q.tb, err)
	return response.StatusCode, string(body)
}

// used asks how much of its quota a key has used.
func (q *quickstart) used(token string) int64 {
	q.tb.Helper()
	status, body := q.get("/v1/usage", token)
	require.Equal(q.tb, 200, status, body)
	var answer struct {
		Success bool
		Data    struct{ Used, Limit int64 }
	}
	require.NoError(q.tb, json.Unmarshal([]byte(body), &answer))
	require.True(q.tb, answer.Success)
	return answer.Data.Used
}

// usesIn returns how many uses of a token's key are in a file.
func usesIn(t testing.TB, file, token string) int64 {
	t.Helper()
	db, err := sql.Open("sqlite", sqlitestore.DSN(file))
	require.NoError(t, err)
	defer db.Close()
	s, err := sqlitestore.New(db, nil)
	require.NoError(t, err)
	sums, err := s.Uses(t.Context(), "demo", []string{token[:17]})
	require.NoError(t, err)
	var n int64
	for _, day := range sums[0].Days {
		n += day.Count
	}
	return n
}

// needTool skips the test where a tool is missing.
func needTool(t *testing.T, name string) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skipf("%s is not installed", name)
	}
}

// TestQuickstartFirstAndSecondStart: the token is printed once (S16), keys and
// counts are kept, -new makes another key, Ctrl-C exits 0.
func TestQuickstartFirstAndSecondStart(t *testing.T) {
	t.Parallel()
	oneDay(t, time.Now, func(t testing.TB) {
		dir := t.TempDir()
		q := startQuickstart(t, dir)
		first := q.token
		require.NotEmpty(t, first)
		require.Equal(t, 3, strings.Count(q.usage, first), "shown, and in the two lines to paste")
		for range 3 {
			status, body := q.get("/v1/ping", first)
			require.Equal(t, 200, status)
			require.Equal(t, "pong from the protected handler", body)
		}
		require.EqualValues(t, 3, q.used(first))
		require.Zero(t, q.stop())
		require.EqualValues(t, 4, usesIn(t, filepath.Join(dir, "keystile-quickstart.db"), first), "S49: three pings and a look at the usage")

		q = startQuickstart(t, dir)
		require.Empty(t, q.token, "a token is shown once")
		require.Contains(t, q.usage, first[:17])
		require.EqualValues(t, 3, q.used(first), "counts are kept")
		require.Zero(t, q.stop())

		q = startQuickstart(t, dir, "-new", "-limit", "5")
		second := q.token
		require.NotEmpty(t, second)
		require.NotEqual(t, first, second)
		for range 2 {
			status, _ := q.get("/v1/ping", first)
			require.Equal(t, 200, status)
		}
		status, body := q.get("/v1/ping", first)
		require.Equal(t, 429, status)
		require.Contains(t, body, `"code":"RateLimitExceeded"`)
		require.EqualValues(t, 5, q.used(first), "usage answers at the limit and spends nothing")
		status, _ = q.get("/v1/ping", second)
		require.Equal(t, 200, status, "S63")
		require.Zero(t, q.stop())

		// S16, S71: the file holds no secret.
		for _, name := range []string{"keystile-quickstart.db", "keystile-quickstart.db-wal"} {
			content, err := os.ReadFile(filepath.Join(dir, name))
			if errors.Is(err, os.ErrNotExist) && strings.HasSuffix(name, "-wal") {
				continue
			}
			require.NoError(t, err)
			require.Contains(t, string(content), first[:17], "the prefix is there")
			require.NotContains(t, string(content), first[17:])
			require.NotContains(t, string(content), second[17:])
		}
	})
}

// TestQuickstartSixthKey: S12: the sixth key is refused with a clear error, before
// anything is served, and the five go on working.
func TestQuickstartSixthKey(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var tokens []string
	for range 5 {
		q := startQuickstart(t, dir, "-new")
		tokens = append(tokens, q.token)
		require.Zero(t, q.stop())
	}
	binary, err := buildQuickstart()
	require.NoError(t, err)
	code, out := refused(t, dir, binary, "-addr", "127.0.0.1:0", "-new")
	require.Equal(t, 1, code)
	require.Contains(t, out, "quickstart: -new: keys: limit of 5 per user reached")
	for _, token := range tokens {
		require.Contains(t, out, token[:17], "it says which keys there are")
	}
	require.Contains(t, out, "another database", "and what else to do")
	q := startQuickstart(t, dir)
	for _, token := range tokens {
		status, _ := q.get("/v1/ping", token)
		require.Equal(t, 200, status)
	}
}

// TestQuickstartBadFlags: bad input gets a clear error that names the flag and what it
// was, and leaves no file behind.
func TestQuickstartBadFlags(t *testing.T) {
	t.Parallel()
	binary, err := buildQuickstart()
	require.NoError(t, err)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = taken.Close() }) // when the rows are over
	addr := taken.Addr().String()
	text := filepath.Join(t.TempDir(), "text")
	require.NoError(t, os.WriteFile(text, []byte("not a database at all"), 0o600))
	for _, test := range []struct {
		name string
		args []string
		code int
		want string
	}{
		{"limit of none", []string{"-limit", "0"}, 1, "quickstart: -limit must be at least 1, or -1"},
		{"negative limit", []string{"-limit", "-5"}, 1, "quickstart: -limit must be at least 1, or -1"},
		{"no number", []string{"-limit", "many"}, 2, `invalid value "many" for flag -limit`},
		{"no such flag", []string{"-lines", "5"}, 2, "-lines"},
		{"no address", []string{"-addr", "nowhere"}, 1, "quickstart: -addr nowhere: "},
		{"address in use", []string{"-addr", addr}, 1, "quickstart: -addr " + addr + ": "},
		{"empty file name", []string{"-db", ""}, 1, "quickstart: -db must name a file"},
		{"missing directory", []string{"-db", filepath.Join("missing", "x.db")}, 1, "quickstart: -db: open " + filepath.Join("missing", "x.db") + ": no such"},
		{"directory", []string{"-db", "."}, 1, "quickstart: -db: open .: "},
		{"no database", []string{"-db", text}, 1, "quickstart: -db " + text + ": "},
		{"argument", []string{"extra"}, 1, `quickstart: there are no arguments, only flags: "extra"`},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			code, out := refused(t, dir, binary, append([]string{"-addr", "127.0.0.1:0"}, test.args...)...)
			require.Equal(t, test.code, code, out)
			require.Contains(t, out, test.want)
			left, err := os.ReadDir(dir)
			require.NoError(t, err)
			require.Empty(t, left)
		})
	}
}

// TestQuickstartCurl: the printed lines work when pasted into a shell.
func TestQuickstartCurl(t *testing.T) {
	t.Parallel()
	needTool(t, "curl")
	q := startQuickstart(t, t.TempDir())
	require.Contains(t, q.curls[0], "Authorization: Bearer")
	require.Contains(t, q.curls[1], "x-api-user:")
	for _, line := range q.curls {
		out, err := exec.CommandContext(t.Context(), "sh", "-c", line).Output()
		require.NoError(t, err)
		require.Contains(t, string(out), "HTTP/1.1 200 OK")
	}
	// Header names in any spelling, Content-Type on a GET, any User-Agent, HTTP/1.0
	// (S4, S5), and no redirect (S8).
	for _, args := range [][]string{
		{"-H", "X-API-USER: demo@example.com", "-H", "X-api-TOKEN: " + q.token, "-H", "Content-Type: application/json"},
		{"-H", "X-Api-User: DEMO@example.com", "-H", "x-api-token: " + q.token, "-A", "SigSci Go-Example"},
		{"-H", "authorization: bearer " + q.token, "-A", ""},
		{"-H", "AUTHORIZATION: BEARER   " + q.token, "--http1.0"},
		{"-H", "Authorization: Bearer " + q.token, "-X", "DELETE"},
		{"-H", "Authorization: Bearer " + q.token, "-X", "OPTIONS"},
		{"-H", "Authorization: Bearer " + q.token, "-d", `{"a":1}`},
	} {
		args = append([]string{"-s", "-w", " %{http_code} %{num_redirects}", "http://" + q.addr + "/v1/ping"}, args...)
		out, err := exec.CommandContext(t.Context(), "curl", args...).Output()
		require.NoError(t, err)
		require.Equal(t, "pong from the protected handler 200 0", string(out), args)
	}
	out, err := exec.CommandContext(t.Context(), "curl", "-sI", "-H", "Authorization: Bearer "+q.token, "http://"+q.addr+"/v1/ping").Output()
	require.NoError(t, err)
	require.Contains(t, string(out), "200 OK")
	require.Contains(t, strings.ToLower(string(out)), `ratelimit: "daily";r=`)
}

// TestQuickstartPython: the standard library's urllib, as in the examples of the
// seed documents.
func TestQuickstartPython(t *testing.T) {
	t.Parallel()
	needTool(t, "python3")
	oneDay(t, time.Now, func(t testing.TB) {
		q := startQuickstart(t, t.TempDir(), "-limit", "3")
		const program = `
import json, sys, urllib.request, urllib.error
base, token = sys.argv[1], sys.argv[2]
def get(path, headers):
    request = urllib.request.Request(base + path, headers=headers)
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, answer.read().decode(), dict(answer.headers)
    except urllib.error.HTTPError as e:
        return e.code, e.read().decode(), dict(e.headers)
bearer = {"Authorization": "Bearer " + token}
both = {"Content-type": "application/json", "x-api-user": "demo@example.com", "x-api-token": token}
print(json.dumps([get("/v1/ping", h) for h in (bearer, both, bearer, bearer, {}, {"x-api-user": "demo@example.com"})]))
`
		cmd := exec.CommandContext(t.Context(), "python3", "-c", program, "http://"+q.addr, q.token)
		cmd.Stderr = os.Stderr
		out, err := cmd.Output()
		require.NoError(t, err)
		var answers [][3]any
		require.NoError(t, json.Unmarshal(out, &answers))
		var codes []any
		for _, a := range answers {
			codes = append(codes, a[0])
		}
		require.Equal(t, []any{200.0, 200.0, 200.0, 429.0, 401.0, 401.0}, codes)
		require.Contains(t, answers[3][1], "RateLimitExceeded")
		require.Contains(t, answers[3][2], "Retry-After")
		require.Contains(t, answers[4][2], "Www-Authenticate")
		require.NotContains(t, answers[4][2].(map[string]any)["Www-Authenticate"], "error=")
		require.Contains(t, answers[5][2].(map[string]any)["Www-Authenticate"], `error="invalid_token"`)
	})
}

// TestQuickstartRaw: what no well-behaved client sends, over a raw connection:
// S74, C5-C9, F30-F32, D31, D41.
func TestQuickstartRaw(t *testing.T) {
	t.Parallel()
	q := startQuickstart(t, t.TempDir(), "-limit", "-1")
	auth := "Authorization: Bearer " + q.token + "\r\n"
	user, token := "x-api-user: demo@example.com\r\n", "x-api-token: "+q.token+"\r\n"
	tests := []struct {
		name   string
		raw    string // HOST stands for the address
		status int
		reason string // in the body, if it is one of ours
	}{
		{"plain", "GET /v1/ping HTTP/1.1\r\nHost: HOST\r\n" + auth + "\r\n", 200, ""},
		{"HTTP/1.0 without Host", "GET /v1/ping HTTP/1.0\r\n" + auth + "\r\n", 200, ""},
		{"HTTP/1.1 without Host", "GET /v1/ping HTTP/1.1\r\n" + auth + "\r\n", 400, ""},
		{"two lines of Authorization", "GET /v1/ping HTTP/1.1\r\nHost: HOST\r\n" + auth + auth + "\r\n", 400, "multiple_credentials"},
		{"two spellings of Authorization", "GET /v1/ping HTTP/1.1\r\nHost: HOST\r\n" + auth + strings.ToLower(auth[:13]) + auth[13:] + "\r\n", 400, "multiple_credentials"},
		{"two lines of x-api-token", "GET /v1/ping HTTP/1.1\r\nHost: HOST\r\n" + user + token + token + "\r\n", 400, "multiple_credentials"},
		{"two kinds", "GET /v1/ping HTTP/1.1\r\nHost: HOST\r\n" + auth + user + token + "\r\n", 400, "multiple_credentials"},
		{"pair", "GET /v1/ping HTTP/1.1\r\nHost: HOST\r\n" + user + token + "\r\n", 200, ""},
		{"blanks around values", "GET /v1/ping HTTP/1.1\r\nHost: HOST\r\nx-api-user: \t demo@example.com \t\r\nx-api-token:   " + q.token + "\t \r\n\r\n", 200, ""},
		{"folded after the scheme", "GET /v1/ping HTTP/1.1\r\nHost: HOST\r\nAuthorization: Bearer\r\n " + q.token + "\r\n\r\n", 200, ""},
		{"folded inside the token", "GET /v1/ping HTTP/1.1\r\nHost: HOST\r\nAuthorization: Bearer " + q.token[:20] + "\r\n " + q.token[20:] + "\r\n\r\n", 401, "invalid_token"},
		{"blank before the colon", "GET /v1/ping HTTP/1.1\r\nHost: HOST\r\nAuthorization : Bearer " + q.token + "\r\n\r\n", 400, ""},
		{"absolute form", "GET http://HOST/v1/ping HTTP/1.1\r\nHost: HOST\r\n" + auth + "\r\n", 200, ""},
		{"absolute form of another host", "GET http://elsewhere.example/v1/ping HTTP/1.1\r\nHost: HOST\r\n\r\n", 401, "no_credentials"},
		{"credentials in the target", "GET http://demo:" + q.token + "@HOST/v1/ping HTTP/1.1\r\nHost: HOST\r\n\r\n", 401, "no_credentials"},
		{"upper-case hex", "GET /v1/ping HTTP/1.1\r\nHost: HOST\r\nAuthorization: Bearer csk_live_" + strings.ToUpper(q.token[9:]) + "\r\n\r\n", 401, "invalid_token"},
		{"trailing character", "GET /v1/ping HTTP/1.1\r\nHost: HOST\r\nAuthorization: Bearer " + q.token + "x\r\n\r\n", 401, "invalid_token"},
		{"tab after the scheme", "GET /v1/ping HTTP/1.1\r\nHost: HOST\r\nAuthorization: Bearer\t" + q.token + "\r\n\r\n", 401, "invalid_token"},
		{"opaque byte", "GET /v1/ping HTTP/1.1\r\nHost: HOST\r\nAuthorization: Bearer " + q.token[:40] + "\xe9\r\n\r\n", 401, "invalid_token"},
		{"NUL", "GET /v1/ping HTTP/1.1\r\nHost: HOST\r\nAuthorization: Bearer " + q.token + "\x00\r\n\r\n", 400, ""},
		{"half a megabyte of token", "GET /v1/ping HTTP/1.1\r\nHost: HOST\r\nAuthorization: Bearer " + strings.Repeat("a", 1<<19) + "\r\n\r\n", 401, "invalid_token"},
		{"more than net/http takes", "GET /v1/ping HTTP/1.1\r\nHost: HOST\r\nAuthorization: Bearer " + strings.Repeat("a", 2<<20) + "\r\n\r\n", 431, ""},
		{"HEAD", "HEAD /v1/ping HTTP/1.1\r\nHost: HOST\r\n" + auth + "\r\n", 200, ""},
		{"HEAD refused", "HEAD /v1/ping HTTP/1.1\r\nHost: HOST\r\n\r\n", 401, ""},
		{"OPTIONS is no exemption", "OPTIONS /v1/ping HTTP/1.1\r\nHost: HOST\r\nOrigin: http://a.example\r\nAccess-Control-Request-Method: GET\r\n\r\n", 401, "no_credentials"},
		{"credentials in trailers", "POST /v1/ping HTTP/1.1\r\nHost: HOST\r\nTrailer: x-api-user, x-api-token\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n" + user + token + "\r\n", 401, "no_credentials"},
		{"underscores", "GET /v1/ping HTTP/1.1\r\nHost: HOST\r\nx_api_user: demo@example.com\r\nx_api_token: " + q.token + "\r\n\r\n", 401, "no_credentials"},
		{"override header", "GET /v1/ping HTTP/1.1\r\nHost: HOST\r\nX-Original-URL: /public\r\nX-HTTP-Method-Override: OPTIONS\r\n\r\n", 401, "no_credentials"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			conn, err := net.Dial("tcp", q.addr)
			require.NoError(t, err)
			defer conn.Close()
			require.NoError(t, conn.SetDeadline(time.Now().Add(20*time.Second)))
			go func() { _, _ = io.WriteString(conn, strings.ReplaceAll(test.raw, "HOST", q.addr)) }()
			method, _, _ := strings.Cut(test.raw, " ")
			response, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
			require.NoError(t, err)
			defer response.Body.Close()
			body, err := io.ReadAll(response.Body)
			require.NoError(t, err)
			require.Equal(t, test.status, response.StatusCode, string(body))
			if test.reason != "" {
				require.Contains(t, string(body), `"reason":"`+test.reason+`"`)
			}
			require.NotContains(t, string(body)+fmt.Sprint(response.Header), q.token[9:], "S75")
		})
	}
}

// TestQuickstartKeepAlive: one connection, changing identities: nothing of one
// request reaches the next.
func TestQuickstartKeepAlive(t *testing.T) {
	t.Parallel()
	oneDay(t, time.Now, func(t testing.TB) {
		dir := t.TempDir()
		q := startQuickstart(t, dir)
		first := q.token
		require.Zero(t, q.stop())
		q = startQuickstart(t, dir, "-new")
		second := q.token
		conn, err := net.Dial("tcp", q.addr)
		require.NoError(t, err)
		defer conn.Close()
		require.NoError(t, conn.SetDeadline(time.Now().Add(20*time.Second)))
		reader := bufio.NewReader(conn)
		ask := func(path, header string) (int, string) {
			_, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\n%s\r\n", path, q.addr, header)
			require.NoError(t, err)
			response, err := http.ReadResponse(reader, nil)
			require.NoError(t, err)
			defer response.Body.Close()
			body, err := io.ReadAll(response.Body)
			require.NoError(t, err)
			return response.StatusCode, string(body)
		}
		for range 3 {
			status, _ := ask("/v1/ping", "Authorization: Bearer "+first+"\r\n")
			require.Equal(t, 200, status)
			status, _ = ask("/v1/ping", "")
			require.Equal(t, 401, status, "the identity of the request before")
			status, _ = ask("/v1/ping", "x-api-user: demo@example.com\r\nx-api-token: "+second+"\r\n")
			require.Equal(t, 200, status)
			status, _ = ask("/v1/ping", "x-api-token: "+second+"\r\n")
			require.Equal(t, 401, status)
		}
		require.EqualValues(t, 3, q.used(first))
		require.EqualValues(t, 3, q.used(second))
	})
}

// TestQuickstartTwoProcesses: two processes on one file and a limit of 250: 300
// parallel requests are admitted exactly 250 times (D8).
func TestQuickstartTwoProcesses(t *testing.T) {
	t.Parallel()
	oneDay(t, time.Now, func(t testing.TB) {
		dir := t.TempDir()
		a := startQuickstart(t, dir)
		b := startQuickstart(t, dir)
		counts := make(map[int]int)
		var mu sync.Mutex
		var wg sync.WaitGroup
		for i := range 20 {
			q := []*quickstart{a, b}[i%2]
			wg.Go(func() {
				for range 15 {
					status, _ := q.get("/v1/ping", a.token)
					mu.Lock()
					counts[status]++
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		require.Equal(t, map[int]int{200: 250, 429: 50}, counts)
	})
}

// TestQuickstartKilled: after kill -9 nothing that was counted is lost.
func TestQuickstartKilled(t *testing.T) {
	t.Parallel()
	oneDay(t, time.Now, func(t testing.TB) {
		dir := t.TempDir()
		q := startQuickstart(t, dir)
		token := q.token
		for range 20 {
			status, _ := q.get("/v1/ping", token)
			require.Equal(t, 200, status)
		}
		require.NoError(t, q.cmd.Process.Signal(syscall.SIGKILL))
		<-q.done
		_ = q.cmd.Wait()
		q = startQuickstart(t, dir)
		require.EqualValues(t, 20, q.used(token))
		require.Zero(t, q.stop())
	})
}
