package ratelimit_test

import (
	"context"
	"fmt"
	"time"

	"github.com/keystile/keystile/ratelimit"
)

// Two nodes borrow from 250 units. The second tells that it has spent 8 of its
// loan and borrows again; then it gives back what it has left.
func ExampleMemory_Lend() {
	m := ratelimit.NewMemory()
	ctx, key, now := context.Background(), "csk_live_a1b2c3d4", at18h()
	end := time.Date(2026, time.March, 11, 0, 0, 0, 0, time.UTC)
	calls := []struct {
		account     string
		spent, want int64
	}{
		{"node 1", 0, 100},
		{"node 2", 0, 100},
		{"node 2", 8, 100},
		{"node 2", 9, 0},
	}
	for _, c := range calls {
		loan, err := m.Lend(ctx, c.account, key, end, c.spent, c.want, 250, now)
		if err != nil {
			fmt.Println(err) // unknown whether it was done: repeat it
			return
		}
		fmt.Printf("%s may spend %2d; of the count of %d, %d may come back from others\n", c.account, loan.Lent-c.spent, loan.Count, loan.Others)
	}
	count, ok, _ := m.Add(ctx, key, end, 232, 250)
	fmt.Println("232 more:", ok, count)
	// Output:
	// node 1 may spend 10; of the count of 10, 0 may come back from others
	// node 2 may spend 10; of the count of 20, 10 may come back from others
	// node 2 may spend 10; of the count of 28, 10 may come back from others
	// node 2 may spend  0; of the count of 19, 10 may come back from others
	// 232 more: false 19
}

// Loans get smaller towards the end, so that nobody sits on the last units.
func ExampleLoanSize() {
	for _, left := range []int64{10_000, 5000, 1000, 100, 10, 1, 0} {
		fmt.Printf("%5d left: %d\n", left, ratelimit.LoanSize(10_000, left, 16))
	}
	// Output:
	// 10000 left: 100
	//  5000 left: 100
	//  1000 left: 31
	//   100 left: 3
	//    10 left: 1
	//     1 left: 1
	//     0 left: 0
}
