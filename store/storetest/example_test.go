package storetest_test

import (
	"fmt"
	"testing"

	"github.com/keystile/keystile/store/memstore"
	"github.com/keystile/keystile/store/storetest"
)

// The test of a store is a function like this one.
func ExampleRun() {
	_ = func(t *testing.T) {
		storetest.Run(t, func(t *testing.T) storetest.Harness {
			t.Parallel() // each case has a store of its own
			s := memstore.New()
			return storetest.Harness{
				Store: s, Uses: s, Feed: s,
				Without: []string{"ForgetChanges", "Break", "Retaining"}, // for brevity: name only what your store has not
			}
		})
	}
}

func ExampleTestStore() {
	err := storetest.TestStore(func() (storetest.Harness, error) {
		s := memstore.New()
		return storetest.Harness{Store: s, Uses: s, Feed: s, Without: []string{"ForgetChanges", "Break", "Retaining"}}, nil
	})
	fmt.Println(err)
	// Output: <nil>
}
