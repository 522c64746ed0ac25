// Package memstore keeps keys, users, settings, use facts and daily counts in
// the memory of one process.
//
// It is the reference implementation of the interfaces of package store: short
// enough to be read as their explanation, exact enough to be compared with. Use
// it in tests, in examples, and where the keys are put in anew at each start.
//
// It keeps nothing beyond the life of the process and shares nothing between
// processes, so a limit is counted per process. It has no index but for what is
// asked for by ID or by user: other lists take time in proportion to everything
// that is kept.
package memstore
