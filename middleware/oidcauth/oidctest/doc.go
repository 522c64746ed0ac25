// Package oidctest is a fake issuer of JSON Web Tokens, for tests of programs that
// use package oidcauth, and for development: an [Issuer] mints tokens as Amazon
// Cognito does, spoils them in every way that a verifier has to notice, and changes
// its keys.
//
// It signs in nobody and asks for nothing: whoever can call it, or knows its private
// keys, which it makes anew for each Issuer, is whoever they like to be. It has no
// place in production. It speaks no more of OpenID Connect than the publication of
// its keys.
package oidctest
