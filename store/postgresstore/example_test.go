package postgresstore_test

import (
	"context"
	"database/sql"
	"fmt"
	"io/fs"
	"log"

	"github.com/keystile/keystile/ratelimit"
	"github.com/keystile/keystile/store/postgresstore"
)

func ExampleNew() {
	// With import _ "github.com/jackc/pgx/v5/stdlib".
	db, err := sql.Open("pgx", "host=db.example.com dbname=keys user=service")
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(8)
	db.SetMaxIdleConns(8)

	s, err := postgresstore.New(db, nil)
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
	var s *postgresstore.Store // from New

	if err := s.Validate(context.Background()); err != nil {
		log.Fatal(err) // names the migrations that are missing
	}
}

// The migrations are plain SQL, for a host that has a tool of its own for them.
func ExampleStore_Migrations() {
	db := sql.OpenDB(new(fake)) // Migrations does not use it.
	s, err := postgresstore.New(db, &postgresstore.Options{TablePrefix: "api_"})
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
