package memstore_test

import (
	"testing"

	"github.com/keystile/keystile/store/memstore"
	"github.com/keystile/keystile/store/storetest"
)

func TestStore(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(t *testing.T) storetest.Harness {
		t.Parallel()
		s := memstore.New()
		return storetest.Harness{Store: s, Uses: s, Feed: s}
	})
}
