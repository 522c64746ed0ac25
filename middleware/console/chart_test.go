package console_test

import (
	"encoding/json"
	"encoding/xml"
	"fmt"
	"math"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// charted returns the two charts of a key that was used so often on the last days,
// the last of which is today, and the page of the key.
func charted(t *testing.T, limit int64, counts ...int64) (small, large string, p *page) {
	t.Helper()
	days := []map[string]any{}
	for i, n := range counts {
		days = append(days, map[string]any{"day": start.Add(time.Duration(i-len(counts)+1) * day).Format(time.DateOnly), "count": n})
	}
	w := newWorld(t, answering("/usage", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]any{"data": map[string]any{"usage": map[string]any{"used": 1, "limit": limit}, "days": days}})
	}))
	_, prefix := w.create("ann", "export")
	svg := regexp.MustCompile(`(?s)<svg.*?</svg>`)
	small = svg.FindString(w.get(200, "/", "ann").Body.String())
	p = w.get(200, "/keys/"+prefix, "ann")
	large = svg.FindString(p.Body.String())
	return small, large, p
}

// An image is an SVG as it is read.
type image struct {
	ViewBox string `xml:"viewBox,attr"`
	Label   string `xml:"aria-label,attr"`
	Rects   []struct {
		X      int    `xml:"x,attr"`
		Y      int    `xml:"y,attr"`
		Width  int    `xml:"width,attr"`
		Height int    `xml:"height,attr"`
		Title  string `xml:"title"`
	} `xml:"rect"`
	Texts []string `xml:"text"`
}

func parse(t *testing.T, svg string) image {
	t.Helper()
	var i image
	require.NoError(t, xml.Unmarshal([]byte(svg), &i), svg)
	return i
}

// TestChart: a bar for each day with requests, as high as its share of the most.
func TestChart(t *testing.T) {
	t.Parallel()
	small, large, p := charted(t, 250, 0, 50, 100, 1)
	i := parse(t, small)
	require.Equal(t, "0 0 300 44", i.ViewBox)
	require.Equal(t, "151 requests in the last 4 days, most of them on 28 Feb: 100.", i.Label)
	require.Len(t, i.Rects, 3)
	require.Equal(t, [4]int{75, 22, 73, 20}, [4]int{i.Rects[0].X, i.Rects[0].Y, i.Rects[0].Width, i.Rects[0].Height})
	require.Equal(t, [4]int{150, 2, 73, 40}, [4]int{i.Rects[1].X, i.Rects[1].Y, i.Rects[1].Width, i.Rects[1].Height})
	require.Equal(t, [4]int{225, 40, 73, 2}, [4]int{i.Rects[2].X, i.Rects[2].Y, i.Rects[2].Width, i.Rects[2].Height}, "one request is seen")
	require.Equal(t, "28 Feb: 100 requests", i.Rects[1].Title)
	require.Equal(t, "1 Mar: 1 request", i.Rects[2].Title)
	require.Empty(t, i.Texts)
	require.Contains(t, small, `class="bar today"`)

	i = parse(t, large)
	require.Equal(t, "0 0 720 220", i.ViewBox)
	require.Equal(t, []string{"0", "50", "100", "26 Feb", "28 Feb", "today"}, i.Texts, "the limit of 250 is out of sight")
	require.Equal(t, 176, i.Rects[1].Height)
	p.says("26 Feb 0 27 Feb 50 28 Feb 100 1 Mar 1")

	_, large, _ = charted(t, 100, 0, 90)
	require.Contains(t, parse(t, large).Texts, "limit 100")
	_, large, _ = charted(t, -1, 0, 90)
	require.NotContains(t, large, "limit")
}

// TestChartOfNothing: no requests, no days, one day.
func TestChartOfNothing(t *testing.T) {
	t.Parallel()
	small, large, p := charted(t, 250, make([]int64, 30)...)
	for _, svg := range []string{small, large} {
		i := parse(t, svg)
		require.Empty(t, i.Rects)
		require.Equal(t, "No requests in the last 30 days.", i.Label)
	}
	require.Equal(t, []string{"0", "1"}, parse(t, large).Texts[:2])
	p.says("No requests in the last 30 days.")

	small, large, _ = charted(t, 250)
	require.Equal(t, "Nothing is known of its use.", parse(t, small).Label)
	require.Empty(t, parse(t, large).Rects)

	_, large, _ = charted(t, 250, 3)
	require.Len(t, parse(t, large).Rects, 1)
}

// TestChartOfAnything: whatever the counts, all bars are inside of the image, in the
// order of the counts, and no number overflows.
func TestChartOfAnything(t *testing.T) {
	t.Parallel()
	for _, counts := range [][]int64{
		{1},
		{1, 2, 3},
		{math.MaxInt64},
		{math.MaxInt64, math.MaxInt64, 1, 0},
		{999_999_999_999, 1},
		{10, 100, 1000, 1_000_000},
		{math.MaxInt64 / 100, math.MaxInt64 / 10},
		{5e17},
		{6e17},
		make([]int64, 30),
	} {
		t.Run(fmt.Sprint(counts), func(t *testing.T) {
			t.Parallel()
			small, large, p := charted(t, math.MaxInt64, counts...)
			for _, svg := range []string{small, large} {
				i := parse(t, svg)
				var w, h int
				_, err := fmt.Sscanf(i.ViewBox, "0 0 %d %d", &w, &h)
				require.NoError(t, err)
				bar := 0
				last, lastHeight := int64(0), 0
				for _, n := range counts {
					if n == 0 {
						continue
					}
					r := i.Rects[bar]
					bar++
					require.GreaterOrEqual(t, r.X, 0)
					require.LessOrEqual(t, r.X+r.Width, w)
					require.GreaterOrEqual(t, r.Y, 0)
					require.LessOrEqual(t, r.Y+r.Height, h)
					require.Positive(t, r.Height)
					require.Positive(t, r.Width)
					if n > last {
						require.GreaterOrEqual(t, r.Height, lastHeight)
					}
					last, lastHeight = n, r.Height
				}
				require.Len(t, i.Rects, bar)
				require.NotContains(t, svg, "NaN")
				require.NotContains(t, svg, "Inf")
				require.NotRegexp(t, `"-`, strings.ReplaceAll(strings.ReplaceAll(svg, `dx="-8"`, ""), `dy="-`, ""))
			}
			for _, n := range counts {
				p.says(grouped(n))
			}
		})
	}
}

// grouped writes a number with commas, by another way than the console's.
func grouped(n int64) string {
	s := strconv.FormatInt(n, 10)
	for re := regexp.MustCompile(`^(\d+)(\d{3})`); re.MatchString(s); {
		s = re.ReplaceAllString(s, "$1,$2")
	}
	return s
}

// TestChartDays: a day that is none is shown as it is, escaped.
func TestChartDays(t *testing.T) {
	t.Parallel()
	w := newWorld(t, answering("/usage", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprint(w, `{"data":{"usage":null,"days":[{"day":"<b>","count":2}]}}`)
	}))
	w.create("ann", "export")
	p := w.get(200, "/", "ann")
	p.says("2 requests in the last 1 days, most of them on <b>: 2.")
}
