// Package itest runs the conformance suites, and what a suite cannot show, on
// real databases. It has no code but tests, and is a module of its own so that
// the drivers are not required by the core. It is never released.
package itest
