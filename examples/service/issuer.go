package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"strings"
	"time"

	"github.com/keystile/keystile/middleware/oidcauth"
)

// issuerOptions are what is configured of the issuer of people.
type issuerOptions struct {
	url, clientID, jwksURL, tokenUse string

	client   *http.Client
	discover bool // ask the issuer where its keys are
}

// Where an issuer does not answer, it is asked again for issuerPatience, with
// issuerPause between.
const (
	issuerPatience = 5 * time.Second
	issuerPause    = 250 * time.Millisecond
)

// keys returns where the keys of the issuer are; empty if they are where Cognito has
// them. An issuer that does not answer is none without a document: the service does
// not start on a guess that would have all its JWTs refused until the next start.
func (o issuerOptions) keys(ctx context.Context) (string, error) {
	if o.jwksURL != "" || !o.discover {
		return o.jwksURL, nil
	}
	ctx, cancel := context.WithTimeout(ctx, issuerPatience)
	defer cancel()
	for {
		found, err := discoverKeys(ctx, o.url)
		switch {
		case errors.Is(err, errNoDiscovery):
			log.Printf("issuer: %v; its keys are expected at /.well-known/jwks.json, unless -jwks-url says where", err)
			return "", nil
		case !errors.Is(err, errNoAnswer):
			return found, err
		}
		select {
		case <-ctx.Done():
			return "", fmt.Errorf("-issuer: %w; with -jwks-url it is not asked for", err)
		case <-time.After(issuerPause):
		}
	}
}

var (
	// errNoDiscovery says that an issuer has no discovery document.
	errNoDiscovery = errors.New("no discovery document")

	// errNoAnswer says that nobody can tell now whether it has one.
	errNoAnswer = errors.New("no answer for the discovery document")
)

// discoverKeys returns where an issuer publishes its keys, as its discovery document
// says (OpenID Connect Discovery 1.0, section 4). It is asked once, at the start: the
// place is configuration from then on, and no request can make the service look
// elsewhere.
func discoverKeys(ctx context.Context, issuer string) (string, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(issuer, "/")+"/.well-known/openid-configuration", nil)
	if err != nil {
		return "", errors.New("-issuer is no URL")
	}
	client := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	response, err := client.Do(r)
	if err != nil {
		return "", fmt.Errorf("%w: %w", errNoAnswer, err)
	}
	defer response.Body.Close()
	switch response.StatusCode {
	case http.StatusOK:
	case http.StatusNotFound, http.StatusGone:
		return "", fmt.Errorf("%w: %s", errNoDiscovery, response.Status)
	default:
		return "", fmt.Errorf("%w: %s", errNoAnswer, response.Status)
	}
	var document struct {
		Issuer string `json:"issuer"`
		JWKS   string `json:"jwks_uri"`
	}
	text, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err != nil {
		return "", fmt.Errorf("%w: %w", errNoAnswer, err)
	}
	switch err := json.Unmarshal(text, &document); {
	case err != nil || document.Issuer == "":
		return "", fmt.Errorf("%w: what is there is something else", errNoDiscovery)
	case document.Issuer != issuer:
		return "", fmt.Errorf("-issuer must be as the issuer writes itself, which is %q", document.Issuer)
	case document.JWKS == "":
		return "", errors.New("-issuer: its discovery document has no jwks_uri")
	}
	return document.JWKS, nil
}

// tokenUses are the values of -token-use.
var tokenUses = map[string]oidcauth.TokenUse{
	"access": oidcauth.Access, "id": oidcauth.ID, "unstated": oidcauth.Unstated,
}

// readTokenUses reads -token-use.
func readTokenUses(list string) ([]oidcauth.TokenUse, error) {
	var uses []oidcauth.TokenUse
	for name := range strings.SplitSeq(list, ",") {
		use, ok := tokenUses[strings.TrimSpace(name)]
		if !ok {
			return nil, errors.New("-token-use must be access, id or unstated, or several of them with commas between")
		}
		uses = append(uses, use)
	}
	return uses, nil
}
