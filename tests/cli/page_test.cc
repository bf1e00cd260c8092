// The pages of the reports: self-contained, escaped, with ticks that enclose the values.
#include "cli/report/page.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

namespace fathom::client {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST(PageTest, TicksEncloseTheValues) {
  for (const double high : {0.003, 0.9, 1.0, 7.0, 12.5, 999.0, 123456.0}) {
    for (const double low : {0.0, high / 3}) {
      for (const auto& ticks : {LinearTicks(low, high), LogTicks(std::max(low, high / 50), high)}) {
        EXPECT_LE(ticks.front(), std::max(low, high / 50) + 1e-12) << high;
        EXPECT_GE(ticks.back(), high * (1 - 1e-12)) << high;
        EXPECT_GE(ticks.size(), 2u) << high;
        EXPECT_LE(ticks.size(), 11u) << high;
        for (size_t i = 1; i < ticks.size(); ++i) EXPECT_GT(ticks[i], ticks[i - 1]);
      }
    }
  }
}

TEST(PageTest, ALogChartLeavesOutWhatItCannotShow) {
  Chart chart{.title = "T", .log_y = true};
  chart.series = {{.name = "a", .points = {{1, 0}, {2, 5}, {3, NAN}, {4, 50}}}};
  const std::string svg = ChartSvg(chart);
  size_t circles = 0;
  for (size_t at = svg.find("<circle"); at != std::string::npos; at = svg.find("<circle", at + 1)) {
    ++circles;
  }
  EXPECT_EQ(circles, 2u);
  EXPECT_THAT(svg, Not(HasSubstr("nan")));
  EXPECT_THAT(ChartSvg({.title = "T"}), HasSubstr("no data"));
  // One point has no extent.
  chart.series = {{.name = "a", .points = {{0, 3}}}};
  EXPECT_THAT(ChartSvg(chart), Not(HasSubstr("nan")));
}

TEST(PageTest, APageLoadsNothingAndEscapesEverything) {
  Page page("<Title>", "a & b");
  page.AddHeading("\"h\"");
  page.AddText("<script>alert(1)</script>");
  page.AddVerdict(false, "<b>");
  page.AddTable({"name", "value"}, {{{"<x>"}, {"1.5", Mark::kBad}}, {{"y"}, {"-"}}});
  page.AddCharts(
      {{.title = "<c>",
        .series = {{.name = "<s>", .points = {{0, 1}, {1, 2}}, .labels = {"<l>", ""}}}}});
  const std::string html = page.Html();
  for (const char* const raw : {"<script", "<Title>", "<b>", "<x>", "<c>", "<s>", "<l>",
                                "http:", "https:", "src=", "@import", "url("}) {
    EXPECT_THAT(html, Not(HasSubstr(raw)));
  }
  EXPECT_THAT(html, HasSubstr("prefers-color-scheme:dark"));
  EXPECT_THAT(html, HasSubstr("a &amp; b"));
  EXPECT_THAT(html, HasSubstr("<td class=\"n bad\">1.5</td>"));
  EXPECT_THAT(html, HasSubstr("<th>name</th>"));  // A column of texts.
}

}  // namespace
}  // namespace fathom::client
