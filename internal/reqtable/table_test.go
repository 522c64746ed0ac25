package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestRequirements fails if REQUIREMENTS.md is out of date or claims what no test
// shows.
func TestRequirements(t *testing.T) {
	t.Parallel()
	got, problems, err := table("../..")
	require.NoError(t, err)
	require.Empty(t, problems)
	want, err := os.ReadFile("../../REQUIREMENTS.md")
	require.NoError(t, err)
	require.Equal(t, string(want), got, "run make requirements")
}

func TestNumbers(t *testing.T) {
	t.Parallel()
	for text, want := range map[string][]string{
		"":                      nil,
		"S1":                    {"S1"},
		"see S12 and (D4).":     {"S12", "D4"},
		"S35-S38":               {"S35", "~S36", "~S37", "S38"},
		"D13–D14":               {"D13", "D14"},
		"S72-D13":               {"D13", "S72"},
		"S1, S2/D3":             {"S1", "S2", "D3"},
		"TLS1 S3x S0 S100 s4 S": nil,
	} {
		require.Equal(t, want, numbers(text), text)
	}
}

// TestTable makes a repository with a requirement of each state, and each state
// that is not true.
func TestTable(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, text string) {
		require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	write("internal/reqtable/requirements.tsv", "# comment\n"+
		"S1\tcore\tOne.\nS2\tpart\tTwo.\tlater\nS3\tdoc\tThree.\tdoc.md\nS4\topen\tFour.\tlater\nS5\topen\tFive.\tlater\n"+
		"D1\tcore\tNot shown.\nD2\topen\tShown.\tlater\nD3\tdoc\tNot said.\tdoc.md\nD4\tdoc\tNowhere.\tabsent.md\n")
	write("doc.md", "About S3.\n")
	write("a/a.go", "package a\n\n// D1 is cited by code only.\n")
	write("a/a_test.go", `package a

// TestOne: S1.
func TestOne() {}

func TestMentions() { _ = "S1, D2" }

func Test_S2() {}

func helper() { /* S2 and S9 */ }

func TestA() { _ = "S1" }
func TestB() { _ = "S1" }
func TestC() { _ = "S1, S3-S5" }
`)
	write("store/storetest/cap.go", "package storetest\n\nvar _ = \"S2\"\n")
	got, problems, err := table(dir)
	require.NoError(t, err)
	require.Contains(t, got, "Of 9 sentences 2 are shown by tests, 3 by documentation, 1 in part, and 3 are open.")
	require.Contains(t, got, "| S1 | One. | [a.TestOne](a/a_test.go), [a.TestA](a/a_test.go), [a.TestB](a/a_test.go), "+
		"[a.TestC](a/a_test.go), 1 more |  |\n")
	require.Contains(t, got, "| S2 | Two. | [a.Test_S2](a/a_test.go), [a.a_test.go](a/a_test.go), "+
		"[storetest.cap.go](store/storetest/cap.go) | later |\n")
	require.Contains(t, got, "| S3 | Three. | [doc.md](doc.md) |  |\n| S4 | Four. |  | later |\n")
	require.Len(t, problems, 6)
	require.Equal(t, "S5: called open, but cited by [a.TestC](a/a_test.go)", problems[0])
	require.Equal(t, "D1: cited by no test", problems[1])
	require.Equal(t, "D2: called open, but cited by [a.TestMentions](a/a_test.go)", problems[2])
	require.Equal(t, "D3: doc.md does not cite it", problems[3])
	require.Contains(t, problems[4], "D4: ")
	require.Equal(t, "S9: cited by [a.a_test.go](a/a_test.go), and there is no such requirement", problems[5])

	write("internal/reqtable/requirements.tsv", "S1\tcore\tOne.\tbut\n")
	_, _, err = table(dir)
	require.ErrorContains(t, err, "requirements.tsv")
	_, _, err = table(filepath.Join(dir, "a"))
	require.Error(t, err)
	write("a/b_test.go", "no Go\n")
	write("internal/reqtable/requirements.tsv", "S1\tcore\tOne.\n")
	_, _, err = table(dir)
	require.Error(t, err)
}
