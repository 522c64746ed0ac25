package store

// Raise is exported to its test: that invalidations overtake each other cannot be
// brought about from outside.
var Raise = raise
