package audit_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keystile/keystile/store/audit"
)

func TestCutJWTs(t *testing.T) {
	t.Parallel()
	const header, payload, signature = "eyJhbGciOiJFUzI1NiJ9", "eyJzdWIiOiJhZGEifQ", "c2ln-bmF0_dXJl"
	for _, tt := range []struct{ name, in, want string }{
		{"empty", "", ""},
		{"none", "curl/8.5.0 (x86_64-pc-linux-gnu)", "curl/8.5.0 (x86_64-pc-linux-gnu)"},
		{"whole", header + "." + payload + "." + signature, "…"},
		{"inside", "a b/" + header + "." + payload + "." + signature + ";c", "a b/…;c"},
		{"two", header + "." + payload + "." + signature + " " + header + "." + payload + "." + signature, "… …"},
		{"without a signature", header + "." + payload + ".", "…"},
		{"cut short", header + "." + payload[:4], "…"},
		{"encrypted, with an empty key", header + "..iv.text.tag", "…"},
		{"a word", "eyJohn", "eyJohn"},
		{"a host", "eye.example.com", "eye.example.com"},
	} {
		require.Equal(t, tt.want, audit.CutJWTs(tt.in), tt.name)
	}
}

func ExampleCutJWTs() {
	fmt.Println(audit.CutJWTs("report/2 (eyJhbGciOiJub25lIn0.eyJzdWIiOiJhZGEifQ.)"))
	// Output: report/2 (…)
}
