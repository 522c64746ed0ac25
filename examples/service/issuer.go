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

// keys returns where the keys of the issuer are; empty if they are where Cognito has
// them.
func (o issuerOptions) keys(ctx context.Context) (string, error) {
	if o.jwksURL != "" || !o.discover {
		return o.jwksURL, nil
	}
	found, err := discoverKeys(ctx, o.url)
	if errors.Is(err, errNoDiscovery) {
		log.Printf("issuer: %v; its keys are expected at /.well-known/jwks.json, unless -jwks-url says where", err)
		return "", nil
	}
	return found, err
}

// errNoDiscovery says that an issuer has no discovery document, or that nobody can
// tell now.
var errNoDiscovery = errors.New("no discovery document")

// discoverKeys returns where an issuer publishes its keys, as its discovery document
// says (OpenID Connect Discovery 1.0, section 4). It is asked once, at the start: the
// place is configuration from then on, and no request can make the service look
// elsewhere.
func discoverKeys(ctx context.Context, issuer string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(issuer, "/")+"/.well-known/openid-configuration", nil)
	if err != nil {
		return "", errors.New("-issuer is no URL")
	}
	client := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	response, err := client.Do(r)
	if err != nil {
		return "", fmt.Errorf("%w: %w", errNoDiscovery, err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%w: %s", errNoDiscovery, response.Status)
	}
	var document struct {
		Issuer string `json:"issuer"`
		JWKS   string `json:"jwks_uri"`
	}
	text, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err != nil {
		return "", fmt.Errorf("%w: %w", errNoDiscovery, err)
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
