// Package storetest tests implementations of the interfaces of package store.
//
// It comes in two forms, as testing/slogtest does: [Run] is for the tests of an
// implementation and has a subtest for each case; [TestStore] returns an error,
// for everything else.
//
// A case states a rule of the contract and the requirement or decision that it
// comes from (S- and D-numbers), which are printed when it fails. The suite
// looks only at what the interfaces show. It does not measure, it does not test
// what a store does when its medium is damaged, and it does not test
// ratelimit.Counter, for which there is package ratelimittest.
//
// Numbers such as S53 and D27 are those of REQUIREMENTS.md in the repository.
package storetest
