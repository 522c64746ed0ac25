package console

import (
	"fmt"
	"math"
	"time"
)

// A chart is the requests of the last days as bars of an SVG image. The template
// writes it: every length is a number of the image's own units, made here.
type chart struct {
	Width, Height int
	Left, Base    int // where the bars begin, and stand on
	Bars          []bar
	Text          string // says the same in a sentence

	// Of a large chart alone.
	Large bool
	Ticks []tick // lines across
	Limit *tick  // the daily limit, if it is near enough to be seen
	Marks []mark // days
}

// A bar is one day.
type bar struct {
	X, Y, Width, Height int
	Count               int64
	Day, Text           string
	Today               bool
}

// A tick is a line across the chart at a number of requests.
type tick struct {
	Y    int
	Text string
}

// A mark is the name of a day below it.
type mark struct {
	X      int
	Text   string
	Anchor string
}

// A chartSize is where a chart has what.
type chartSize struct {
	large                              bool
	width, height                      int
	left, right, top, bottom, gap, min int
}

var (
	smallChart = chartSize{width: 300, height: 44, top: 2, bottom: 2, gap: 2, min: 2}
	largeChart = chartSize{large: true, width: 720, height: 220, left: 60, right: 8, top: 16, bottom: 28, gap: 4, min: 2}
)

// newChart draws what is known of the use of a key.
func newChart(u keyUsage, size chartSize) chart {
	c := chart{Width: size.width, Height: size.height, Left: size.left, Base: size.height - size.bottom, Large: size.large}
	c.Text = sentence(u.Days)
	most := int64(0)
	for _, d := range u.Days {
		most = max(most, d.Count)
	}
	top, room := most, c.Base-size.top
	if size.large {
		top = niceAbove(most)
	}
	// Counts are numbers of any size, so lengths are made of quotients.
	height := func(n int64) int { return int(math.Round(float64(n) / float64(top) * float64(room))) }
	if len(u.Days) > 0 {
		step := (size.width - size.left - size.right) / len(u.Days)
		for i, d := range u.Days {
			b := bar{
				X: size.left + i*step, Width: max(step-size.gap, 1), Y: c.Base,
				Count: d.Count, Day: dayText(d.Day), Today: i == len(u.Days)-1,
			}
			b.Text = b.Day + ": " + plural(d.Count, "request", "requests")
			if d.Count > 0 {
				b.Height = max(height(d.Count), size.min) // so that one request is seen
				b.Y = c.Base - b.Height
			}
			c.Bars = append(c.Bars, b)
		}
	}
	if !size.large {
		return c
	}
	at := []int64{0, top / 2, top}
	if top%2 != 0 {
		at = []int64{0, top}
	}
	for _, n := range at {
		c.Ticks = append(c.Ticks, tick{c.Base - height(n), grouped(n)})
	}
	if u.Usage != nil && u.Usage.Limit > 0 && u.Usage.Limit <= top {
		c.Limit = &tick{c.Base - height(u.Usage.Limit), "limit " + grouped(u.Usage.Limit)}
	}
	for i, b := range c.Bars {
		switch i {
		case 0:
			c.Marks = append(c.Marks, mark{b.X, b.Day, "start"})
		case len(c.Bars) / 2:
			c.Marks = append(c.Marks, mark{b.X + b.Width/2, b.Day, "middle"})
		case len(c.Bars) - 1:
			c.Marks = append(c.Marks, mark{b.X + b.Width, "today", "end"})
		}
	}
	return c
}

// niceAbove returns the smallest of 1, 2, 5, 10, 20 and so on that is at least n, or
// n where that is no int64.
func niceAbove(n int64) int64 {
	for step := int64(1); ; step *= 10 {
		for _, nice := range []int64{step, 2 * step, 5 * step} {
			if nice >= n {
				return max(nice, 1)
			}
		}
		if step > math.MaxInt64/100 {
			return n
		}
	}
}

// dayText writes a day of ISO 8601 for people, or as it is if it is none.
func dayText(day string) string {
	t, err := time.Parse(time.DateOnly, day)
	if err != nil {
		return day
	}
	return t.Format("2 Jan")
}

// sentence says what a chart shows.
func sentence(days []dayCount) string {
	var sum, most float64 // which may be more than an int64 has room for
	var when string
	for _, d := range days {
		sum += float64(d.Count)
		if float64(d.Count) > most {
			most, when = float64(d.Count), dayText(d.Day)
		}
	}
	switch {
	case len(days) == 0:
		return "Nothing is known of its use."
	case sum == 0:
		return fmt.Sprintf("No requests in the last %d days.", len(days))
	case sum < math.MaxInt64:
		return fmt.Sprintf("%s in the last %d days, most of them on %s: %s.",
			plural(int64(sum), "request", "requests"), len(days), when, grouped(int64(most)))
	}
	return fmt.Sprintf("%g requests in the last %d days.", sum, len(days))
}
