#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "cli/report/page.h"

namespace fathom::client {
namespace {

constexpr double kWidth = 560, kHeight = 330;
constexpr double kLeft = 62, kRight = 16, kTop = 14, kBottom = 46;
constexpr size_t kDotsMax = 40;  // A longer line has no dots.
constexpr size_t kColors = 6;    // Classes c0 to c5 of the page.

// Maps values to pixels.
struct Scale {
  double low = 0, high = 1, from = 0, to = 1;
  bool log = false;
  double At(double value) const {
    const double share =
        log ? std::log(value / low) / std::log(high / low) : (value - low) / (high - low);
    return from + share * (to - from);
  }
};

std::string TickText(double value) {
  if (value == 0) return "0";
  const double size = std::abs(value);
  if (size >= 1e6) return fmt::format("{:g}M", value / 1e6);
  if (size >= 1e4) return fmt::format("{:g}k", value / 1e3);
  return fmt::format("{:g}", value);
}

bool Drawn(const Chart& chart, const std::pair<double, double>& point) {
  return std::isfinite(point.first) && std::isfinite(point.second) &&
         (!chart.log_y || point.second > 0);
}

struct Bounds {
  double x_low = HUGE_VAL, x_high = -HUGE_VAL, y_low = HUGE_VAL, y_high = -HUGE_VAL;
  bool empty() const { return x_low > x_high; }
};

Bounds BoundsOf(const Chart& chart) {
  Bounds bounds;
  for (const ChartSeries& series : chart.series) {
    for (const auto& point : series.points) {
      if (!Drawn(chart, point)) continue;
      bounds.x_low = std::min(bounds.x_low, point.first);
      bounds.x_high = std::max(bounds.x_high, point.first);
      bounds.y_low = std::min(bounds.y_low, point.second);
      bounds.y_high = std::max(bounds.y_high, point.second);
    }
  }
  return bounds;
}

std::string Axes(const Chart& chart, const std::vector<double>& x_ticks, const Scale& x,
                 const std::vector<double>& y_ticks, const Scale& y) {
  std::string svg;
  for (const double tick : y_ticks) {
    svg += fmt::format(R"(<line class="grid" x1="{:.1f}" x2="{:.1f}" y1="{:.1f}" y2="{:.1f}"/>)"
                       R"(<text class="tick" x="{:.1f}" y="{:.1f}" text-anchor="end">{}</text>)",
                       kLeft, kWidth - kRight, y.At(tick), y.At(tick), kLeft - 7, y.At(tick) + 4,
                       TickText(tick));
  }
  for (const double tick : x_ticks) {
    svg += fmt::format(R"(<line class="grid" x1="{:.1f}" x2="{:.1f}" y1="{:.1f}" y2="{:.1f}"/>)"
                       R"(<text class="tick" x="{:.1f}" y="{:.1f}" text-anchor="middle">{}</text>)",
                       x.At(tick), x.At(tick), kTop, kHeight - kBottom, x.At(tick),
                       kHeight - kBottom + 16, TickText(tick));
  }
  const auto axis = [](const std::string& place, const std::string& text) {
    return fmt::format("<text class='axis' text-anchor='middle' transform='{}'>{}</text>", place,
                       EscapeHtml(text));
  };
  const double middle = (kTop + kHeight - kBottom) / 2;
  return svg +
         axis(fmt::format("translate({:.1f} {:.1f})", (kLeft + kWidth - kRight) / 2, kHeight - 10),
              chart.x_label) +
         axis(fmt::format("translate(14 {:.1f}) rotate(-90)", middle), chart.y_label);
}

std::string SeriesSvg(const Chart& chart, size_t index, const Scale& x, const Scale& y) {
  const ChartSeries& series = chart.series[index];
  const size_t color = index % kColors;
  std::string line, dots;
  for (size_t i = 0; i < series.points.size(); ++i) {
    const auto& point = series.points[i];
    if (!Drawn(chart, point)) continue;
    const double px = x.At(point.first), py = y.At(point.second);
    line += fmt::format("{}{:.1f},{:.1f}", line.empty() ? "" : " ", px, py);
    const std::string label = i < series.labels.size() ? series.labels[i] : "";
    const bool bare = series.dashed || series.points.size() > kDotsMax;
    if (bare && label.empty()) continue;
    dots += fmt::format(R"(<circle class="f{}" cx="{:.1f}" cy="{:.1f}" r="3.5"><title>{}: {:.4g}, )"
                        R"({:.4g}{}</title></circle>)",
                        color, px, py, EscapeHtml(series.name), point.first, point.second,
                        label.empty() ? "" : " (" + EscapeHtml(label) + ")");
    if (!label.empty()) {
      dots += fmt::format(R"(<text class="point" x="{:.1f}" y="{:.1f}">{}</text>)", px + 6, py - 6,
                          EscapeHtml(label));
    }
  }
  return fmt::format(R"(<polyline class="s{}"{} points="{}"/>)", color,
                     series.dashed ? R"( stroke-dasharray="5 5")" : "", line) +
         dots;
}

}  // namespace

std::vector<double> LinearTicks(double low, double high) {
  const double rough = (high - low) / 6;
  const double power = std::pow(10, std::floor(std::log10(rough)));
  double step = power * 10;
  for (const double factor : {1.0, 2.0, 5.0}) {
    if (factor * power >= rough) {
      step = factor * power;
      break;
    }
  }
  std::vector<double> ticks;
  const auto first = static_cast<int64_t>(std::floor(low / step));
  for (int64_t i = first; ticks.empty() || ticks.back() < high; ++i) {
    ticks.push_back(static_cast<double>(i) * step);
  }
  return ticks;
}

std::vector<double> LogTicks(double low, double high) {
  const auto first = static_cast<int>(std::floor(std::log10(low)));
  const auto last = static_cast<int>(std::ceil(std::log10(high)));
  const bool dense = last - first <= 2;
  std::vector<double> ticks;
  for (int power = first; power <= std::max(last, first + 1); ++power) {
    for (const double factor : {1.0, 2.0, 5.0}) {
      if (factor > 1 && (!dense || power == std::max(last, first + 1))) continue;
      ticks.push_back(factor * std::pow(10, power));
    }
  }
  // The densest that still encloses both.
  while (ticks.size() > 2 && ticks[1] <= low) ticks.erase(ticks.begin());
  while (ticks.size() > 2 && ticks[ticks.size() - 2] >= high) ticks.pop_back();
  return ticks;
}

std::string ChartSvg(const Chart& chart) {
  const std::string open = fmt::format(R"(<svg viewBox="0 0 {} {}" role="img" aria-label="{}">)",
                                       kWidth, kHeight, EscapeHtml(chart.title));
  const Bounds bounds = BoundsOf(chart);
  if (bounds.empty()) {
    return open +
           fmt::format(R"(<text class="axis" x="{}" y="{}" text-anchor="middle">no data</text>)"
                       "</svg>",
                       kWidth / 2, kHeight / 2);
  }
  const double x_low = std::min(bounds.x_low, 0.0);
  const auto x_ticks = LinearTicks(x_low, std::max(bounds.x_high, x_low + 1e-9));
  const auto y_ticks =
      chart.log_y ? LogTicks(bounds.y_low, bounds.y_high)
                  : LinearTicks(std::min(bounds.y_low, 0.0), std::max(bounds.y_high, 1e-9));
  const Scale x{x_ticks.front(), x_ticks.back(), kLeft, kWidth - kRight};
  const Scale y{y_ticks.front(), y_ticks.back(), kHeight - kBottom, kTop, chart.log_y};
  std::string svg = open + Axes(chart, x_ticks, x, y_ticks, y);
  for (size_t i = 0; i < chart.series.size(); ++i) svg += SeriesSvg(chart, i, x, y);
  return svg + "</svg>";
}

}  // namespace fathom::client
