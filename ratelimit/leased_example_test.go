package ratelimit_test

import (
	"context"
	"fmt"
	"time"

	"github.com/keystile/keystile/ratelimit"
)

// A node borrows blocks of units from what all nodes share, here a Memory, and
// spends them by itself. The day's limit holds for all nodes together.
func ExampleNewLeased() {
	shared := ratelimit.NewMemory()
	node := ratelimit.NewLeased(shared, nil)
	daily := ratelimit.NewDaily(node, &ratelimit.DailyOptions{Limit: 3, Now: func() time.Time { return at18h() }})
	ctx := context.Background()
	for range 4 {
		r, err := daily.Take(ctx, "csk_live_a1b2c3d4", 0)
		fmt.Println(r.OK, r.Remaining, err)
	}
	fmt.Println(node.Close(ctx)) // gives back what is left
	// Output:
	// true 2 <nil>
	// true 1 <nil>
	// true 0 <nil>
	// false 0 <nil>
	// <nil>
}
