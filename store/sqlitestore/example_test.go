package sqlitestore_test

import (
	"context"
	"database/sql"
	"fmt"
	"io/fs"
	"log"

	"github.com/keystile/keystile/ratelimit"
	"github.com/keystile/keystile/store/sqlitestore"
)

func ExampleNew() {
	// With import _ "modernc.org/sqlite".
	db, err := sql.Open("sqlite", sqlitestore.DSN("keys.db"))
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(8)

	s, err := sqlitestore.New(db, nil)
	if err != nil {
		log.Fatal(err)
	}
	if err := s.Migrate(context.Background()); err != nil {
		log.Fatal(err)
	}
	// s goes to keys.New, and as a counter to a limiter.
	limiter := ratelimit.NewDaily(s, nil)
	_ = limiter
}

// A process that has no right to change tables checks them at its start.
func ExampleStore_Validate() {
	var s *sqlitestore.Store // from New

	if err := s.Validate(context.Background()); err != nil {
		log.Fatal(err) // names the migrations that are missing
	}
}

// The migrations are plain SQL, for a host that has a tool of its own for them.
func ExampleStore_Migrations() {
	db := sql.OpenDB(outage{}) // Migrations does not use it.
	s, err := sqlitestore.New(db, &sqlitestore.Options{TablePrefix: "api_"})
	if err != nil {
		log.Fatal(err)
	}
	names, err := fs.Glob(s.Migrations(), "*.sql")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(names)
	// Output: [0001_init.sql 0002_loans.sql]
}

func ExampleDSN() {
	fmt.Println(sqlitestore.DSN("/var/lib/my service/keys.db"))
	// Output: file:///var/lib/my service/keys.db?_pragma=busy_timeout(5000)&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_pragma=foreign_keys(1)&_txlock=immediate
}
