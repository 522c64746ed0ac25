package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const golden = "../../api/keystile.txt"

// TestGolden fails when the exported API differs from the golden file, so that
// no change of it goes unseen.
func TestGolden(t *testing.T) {
	t.Parallel()
	want, err := os.ReadFile(golden)
	require.NoError(t, err)
	got, err := list("../..")
	require.NoError(t, err)
	added, removed := compare(string(want), got)
	require.Empty(t, slices.Concat(removed, added),
		"the exported API differs from api/keystile.txt; if it should, run make api")
}

// compare returns the lines of each text that the other has not.
func compare(want, got string) (added, removed []string) {
	missing := func(a, b, mark string) (lines []string) {
		has := map[string]bool{}
		for line := range strings.Lines(b) {
			has[line] = true
		}
		for line := range strings.Lines(a) {
			if !has[line] {
				lines = append(lines, mark+line)
			}
		}
		return lines
	}
	return missing(got, want, "+ "), missing(want, got, "- ")
}

// TestList lists a module that has one of each kind.
func TestList(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, text string) {
		require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	write("go.mod", "module m\n\ngo 1.26.0\n")
	write("internal/hidden/hidden.go", "package hidden\n\ntype H struct{}\n")
	write("a_test.go", "package m_test\n")
	write("a/a.go", `package a

import (
	"io"
	"iter"
	"time"
)

const N time.Duration = 5

var Err error

type (
	S struct {
		F io.Reader
		g int
	}
	I interface {
		M(x int) error
		hidden()
	}
	D  func(S) *S
	A  = S
	un int
)

func F(s *S, rest ...string) (n int, err error) { return 0, nil }
func (s *S) P()                                 {}
func (s *S) Find(seq iter.Seq[int]) (int, error) {
	for n := range seq {
		return n, nil
	}
	return 0, Err
}
func (S) V(io.Reader) int                       { return 0 }
func (un) Exported()                            {}
func f()                                        {}
`)
	got, err := list(dir)
	require.NoError(t, err)
	require.Equal(t, `pkg a, const N time.Duration = 5
pkg a, field S.F io.Reader
pkg a, func F(s *S, rest ...string) (n int, err error)
pkg a, method (*S) Find(seq iter.Seq[int]) (int, error)
pkg a, method (*S) P()
pkg a, method (S) V(io.Reader) int
pkg a, method I has unexported methods
pkg a, method I.M(x int) error
pkg a, type A = S
pkg a, type D func(S) *S
pkg a, type I interface
pkg a, type S struct
pkg a, var Err error
`, got)

	_, err = list(filepath.Join(dir, "absent"))
	require.Error(t, err)

	added, removed := compare("a\nb\n", "b\nc\n")
	require.Equal(t, []string{"+ c\n"}, added)
	require.Equal(t, []string{"- a\n"}, removed)
}
