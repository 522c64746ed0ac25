package pgnotify_test

import (
	"database/sql"
	"log"

	_ "github.com/jackc/pgx/v5/stdlib"

	"github.com/keystile/keystile/store"
	"github.com/keystile/keystile/store/keys"
	"github.com/keystile/keystile/store/postgresstore"
	"github.com/keystile/keystile/store/postgresstore/pgnotify"
)

func ExampleNew() {
	// The store may go through a pooler, the listener must not.
	db, err := sql.Open("pgx", "host=pooler.example.com dbname=keys user=service default_query_exec_mode=exec")
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	s, err := postgresstore.New(db, nil)
	if err != nil {
		log.Fatal(err)
	}
	listener, err := pgnotify.New("host=db.example.com dbname=keys user=service", s.NotifyChannel(), &pgnotify.Options{
		Failed: func(err error) { log.Print(err) },
	})
	if err != nil {
		log.Fatal(err)
	}
	defer listener.Close()
	mgr, err := keys.New(s, &keys.Options{Cache: &store.CacheOptions{Feed: s, FeedWake: listener.Wake()}})
	if err != nil {
		log.Fatal(err)
	}
	defer mgr.Close()
}
