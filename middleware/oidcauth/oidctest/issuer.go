package oidctest

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"io"
	"maps"
	"math/big"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Options configure an [Issuer]. A nil *Options means the defaults.
type Options struct {
	// Lifetime is how long tokens are valid.
	// Defaults to one hour (S65).
	Lifetime time.Duration

	// Now is the clock.
	// Defaults to [time.Now].
	Now func() time.Time
}

// An Issuer is a fake OIDC issuer with one app client. As an [http.Handler] it
// serves its keys at /.well-known/jwks.json below any path. All methods are safe for
// concurrent use. See [New].
type Issuer struct {
	url      string
	clientID string
	opts     Options

	mu      sync.Mutex
	keys    []*signer // that are served; the first one signs
	down    bool
	fetches int
}

// A signer is a key with its name.
type signer struct {
	kid     string
	private *rsa.PrivateKey
}

// New returns an Issuer whose tokens name url as their issuer and clientID as their
// client. It makes a key of 2048 bits, which takes a tenth of a second or more; so
// does every other key.
//
// There are two ways to its keys. [Issuer.Client] needs no server, and any url will
// do. To serve them, url is where the Issuer is mounted:
//
//	server := httptest.NewUnstartedServer(nil)
//	issuer := oidctest.New("http://"+server.Listener.Addr().String(), "client-1", nil)
//	server.Config.Handler = issuer
//	server.Start()
func New(url, clientID string, opts *Options) *Issuer {
	i := &Issuer{url: url, clientID: clientID, keys: []*signer{newSigner()}}
	if opts != nil {
		i.opts = *opts
	}
	if i.opts.Lifetime == 0 {
		i.opts.Lifetime = time.Hour
	}
	if i.opts.Now == nil {
		i.opts.Now = time.Now
	}
	return i
}

// newSigner makes a key. Its kid looks like those of Cognito: base64 with padding,
// and with characters that mean something in a URL.
func newSigner() *signer {
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic("oidctest: " + err.Error()) // not with this size
	}
	id := make([]byte, 32)
	rand.Read(id)
	copy(id, "\xfb\xff\xbf")
	return &signer{base64.StdEncoding.EncodeToString(id), private}
}

// AccessToken returns a token of use "access" for a user, with these claims on top
// of those that Cognito issues. A claim of nil takes one of those away.
func (i *Issuer) AccessToken(sub string, claims map[string]any) string {
	return i.Sign(nil, i.accessClaims(sub, claims))
}

// IDToken returns a token of use "id" for a user, with these claims on top of those
// that Cognito issues; the e-mail is sub and "@example.com", and verified. A claim of
// nil takes one of those away.
func (i *Issuer) IDToken(sub string, claims map[string]any) string {
	c := i.claims("id", sub)
	c["aud"] = i.clientID
	c["cognito:username"] = sub
	c["email"] = sub + "@example.com"
	c["email_verified"] = true
	return i.Sign(nil, over(c, claims))
}

// Sign returns a token with exactly these claims, signed by the current key, and a
// header of alg, kid and these members on top of them. A member of nil takes one of
// those away. It panics if something cannot be encoded as JSON.
func (i *Issuer) Sign(header, claims map[string]any) string {
	k := i.current()
	return k.sign(encode(i.header(k, header)) + "." + encode(claims))
}

// Rotate makes a new key, which signs from now on. Those before it are served on.
func (i *Issuer) Rotate() {
	k := newSigner()
	i.mu.Lock()
	defer i.mu.Unlock()
	i.keys = append([]*signer{k}, i.keys...)
}

// Retire stops serving every key but the current one.
func (i *Issuer) Retire() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.keys = i.keys[:1:1]
}

// SetDown makes the Issuer answer every request by 500, or not any more.
func (i *Issuer) SetDown(down bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.down = down
}

// Fetches returns how often its keys were asked for, whatever the answer was.
func (i *Issuer) Fetches() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.fetches
}

// ServeHTTP serves the keys.
func (i *Issuer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	status, body := i.answer(r)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(body) // the client may be gone
}

// Client returns a client whose requests are answered by the Issuer, without any
// network, so that it can be used within testing/synctest.
func (i *Issuer) Client() *http.Client { return &http.Client{Transport: transport{i}} }

type transport struct{ issuer *Issuer }

// RoundTrip implements http.RoundTripper.
func (t transport) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	status, body := t.issuer.answer(r)
	return &http.Response{
		Status:        strconv.Itoa(status) + " " + http.StatusText(status),
		StatusCode:    status,
		Proto:         "HTTP/1.1",
		ProtoMajor:    1,
		ProtoMinor:    1,
		Header:        http.Header{"Content-Type": {"application/json"}},
		Body:          io.NopCloser(bytes.NewReader(body)),
		ContentLength: int64(len(body)),
		Request:       r,
	}, nil
}

// answer returns the status and the body that r is answered by.
func (i *Issuer) answer(r *http.Request) (status int, body []byte) {
	if !strings.HasSuffix(r.URL.Path, "/.well-known/jwks.json") {
		return http.StatusNotFound, []byte("{}")
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.fetches++
	if i.down {
		return http.StatusInternalServerError, []byte("{}")
	}
	var set struct {
		Keys []map[string]any `json:"keys"`
	}
	for _, k := range i.keys {
		set.Keys = append(set.Keys, map[string]any{
			"kty": "RSA", "use": "sig", "alg": "RS256", "kid": k.kid,
			"n": base64.RawURLEncoding.EncodeToString(k.private.N.Bytes()),
			"e": base64.RawURLEncoding.EncodeToString(big.NewInt(int64(k.private.E)).Bytes()),
		})
	}
	return http.StatusOK, marshal(set)
}

// current returns the key that signs.
func (i *Issuer) current() *signer {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.keys[0]
}

// header returns the header of a token signed by k, with members on top.
func (i *Issuer) header(k *signer, members map[string]any) map[string]any {
	return over(map[string]any{"alg": "RS256", "kid": k.kid}, members)
}

// accessClaims returns the claims of an access token, with more on top.
func (i *Issuer) accessClaims(sub string, more map[string]any) map[string]any {
	c := i.claims("access", sub)
	c["client_id"] = i.clientID
	c["scope"] = "openid profile"
	c["username"] = sub
	c["version"] = 2
	return over(c, more)
}

// claims returns what is in tokens of every use.
func (i *Issuer) claims(use, sub string) map[string]any {
	now := i.opts.Now()
	return map[string]any{
		"iss":        i.url,
		"sub":        sub,
		"token_use":  use,
		"auth_time":  now.Unix(),
		"iat":        now.Unix(),
		"exp":        now.Add(i.opts.Lifetime).Unix(),
		"jti":        rand.Text(),
		"origin_jti": rand.Text(),
		"event_id":   rand.Text(),
	}
}

// over returns members with more on top, of which those that are nil take away.
func over(members, more map[string]any) map[string]any {
	maps.Copy(members, more)
	maps.DeleteFunc(members, func(_ string, v any) bool { return v == nil })
	return members
}

// sign returns text, the first two parts of a token, with its signature.
func (s *signer) sign(text string) string {
	sum := sha256.Sum256([]byte(text))
	signature, err := rsa.SignPKCS1v15(nil, s.private, crypto.SHA256, sum[:])
	if err != nil {
		panic("oidctest: " + err.Error()) // not with such a key
	}
	return text + "." + base64.RawURLEncoding.EncodeToString(signature)
}

// encode returns v as a part of a token.
func encode(v any) string { return base64.RawURLEncoding.EncodeToString(marshal(v)) }

func marshal(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic("oidctest: " + err.Error())
	}
	return b
}
