package sqlstore

import (
	"strconv"
	"strings"
)

// rowsAtOnce is how many rows one statement names or writes, where there can be
// any number: enough to share the cost of a statement, with fewer parameters than
// any database has for its limit.
const rowsAtOnce = 100

// Arguments are those of a statement that is put together at run time.
type arguments []any

// list adds values and returns their placeholders.
func (a *arguments) list(values ...any) string {
	*a = append(*a, values...)
	return placeholders(len(*a)-len(values)+1, len(values))
}

// placeholders returns n placeholders, numbered from first, with commas between
// them.
func placeholders(first, n int) string {
	var b strings.Builder
	for i := range n {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteByte('$')
		b.WriteString(strconv.Itoa(first + i))
	}
	return b.String()
}

// A where is the condition of a query. The zero where has none.
type where struct {
	arguments
	conditions []string
}

func (w *where) and(condition string) { w.conditions = append(w.conditions, condition) }

// equal adds the condition that a column has a value, unless that is empty.
func (w *where) equal(column, value string) {
	if value != "" {
		w.and(column + " = " + w.list(value))
	}
}

func (w *where) String() string {
	if len(w.conditions) == 0 {
		return ""
	}
	return " WHERE " + strings.Join(w.conditions, " AND ")
}
