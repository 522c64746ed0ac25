package sqlitestore

import (
	"path/filepath"
	"strings"
)

// DSN returns the data source name of the database in a file, for the driver
// modernc.org/sqlite, whose name is "sqlite". The path may have any characters
// and is always that of a file: ":memory:" is a file too.
//
// The name asks for a write-ahead log, so that readers and the writer do not wait
// for each other; for a wait of up to 5 seconds when another connection writes;
// for a sync of the disk at every commit; for foreign keys, for the host's own
// tables; and for transactions that take their lock when they begin. Every one of
// these can be asked for otherwise in a name of the host's own; see Durability
// above for what synchronous(NORMAL) gives up.
func DSN(path string) string {
	// A URI that begins with an empty authority takes any absolute path; a relative
	// one cannot be told from ":memory:", or from no path, without its dot.
	path = filepath.ToSlash(path)
	switch {
	case filepath.VolumeName(path) != "":
		path = "///" + path
	case strings.HasPrefix(path, "/"):
		path = "//" + path
	default:
		path = "./" + path
	}
	return "file:" + escapePath.Replace(path) +
		"?_pragma=busy_timeout(5000)" +
		"&_pragma=journal_mode(WAL)" +
		"&_pragma=synchronous(FULL)" +
		"&_pragma=foreign_keys(1)" +
		"&_txlock=immediate"
}

// escapePath escapes what ends a path in a URI, and what escapes.
var escapePath = strings.NewReplacer("%", "%25", "?", "%3f", "#", "%23")
