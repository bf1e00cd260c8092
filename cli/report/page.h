// cli/report/page.h: one self-contained HTML page with tables and charts, for the reports of
// `fathom bench serve` and `fathom accept`. Charts are inline SVG; the page has no script, loads
// nothing, and follows the reader's light or dark scheme. All texts are escaped. Pure.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace fathom::client {

// A line through points; the x of its points ascends.
struct ChartSeries {
  std::string name;
  std::vector<std::pair<double, double>> points;
  std::vector<std::string> labels;  // Of the points, shown beside them; may be empty.
  bool dashed = false;
};

struct Chart {
  std::string title;
  std::string note;  // One sentence below the title.
  std::string x_label, y_label;
  bool log_y = false;  // Points with y <= 0 are left out.
  std::vector<ChartSeries> series;
};

// "Round" positions for 4 to 8 ticks from at most `low` to at least `high`. REQUIRES: low < high.
std::vector<double> LinearTicks(double low, double high);
// The powers of ten, with 2 and 5 times them if there are few, that enclose both. REQUIRES: 0 <
// low.
std::vector<double> LogTicks(double low, double high);

// The chart as an <svg> element. Without points it says so.
std::string ChartSvg(const Chart& chart);

std::string EscapeHtml(std::string_view text);

// How a table cell is coloured.
enum class Mark { kNone, kGood, kBad };
struct TableCellText {
  std::string text;
  Mark mark = Mark::kNone;
};

class Page {
 public:
  Page(std::string_view title, std::string_view subtitle);
  void AddHeading(std::string_view text);
  void AddText(std::string_view text);
  void AddVerdict(bool good, std::string_view text);
  // Rows may be shorter than the head. Numbers are right-aligned.
  void AddTable(const std::vector<std::string>& head,
                const std::vector<std::vector<TableCellText>>& rows);
  // Side by side, as the width allows.
  void AddCharts(const std::vector<Chart>& charts);
  std::string Html() const;

 private:
  std::string title_, body_;
};

}  // namespace fathom::client
