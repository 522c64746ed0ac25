package rediscounter_test

import (
	"context"
	"fmt"
	"time"

	"github.com/keystile/keystile/ratelimit"
	"github.com/keystile/keystile/ratelimit/rediscounter"
)

// A daily limit that all processes on the server share. With NewLeased between the
// two, it costs few trips.
func ExampleNew() {
	client, err := rediscounter.Open("redis://localhost:6379/0")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer client.Close()
	leased := ratelimit.NewLeased(rediscounter.New(client, nil), nil)
	defer leased.Close(context.Background())
	limiter := ratelimit.NewDaily(leased, nil)

	_, _ = limiter.Take(context.Background(), "csk_live_a1b2c3d4", 250)
}

// A password does not get into an error.
func ExampleOpen() {
	_, err := rediscounter.Open("redis://user:secret@host:port")
	fmt.Println(err)

	// Output:
	// rediscounter: not the URL of a server, such as redis://user:password@host:6379/0, rediss://host or unix:///path?db=0
}

// A Counter that cannot count refuses.
func ExampleNew_incorrect() {
	c := rediscounter.New(nil, nil)
	_, ok, err := c.Add(context.Background(), "csk_live_a1b2c3d4", time.Now(), 1, 250)
	fmt.Println(ok, err)

	// Output:
	// false rediscounter: no client
}
