#include "cli/status/metrics_text.h"

#include <algorithm>
#include <charconv>
#include <functional>

namespace fathom::client {
namespace {

// Calls `use` with the labels ("" or the text between the braces) and the value of each line of the
// metric. A brace inside a label's value ends the search for the labels too late, never too early:
// the value is what follows the last "} ".
void ForEachLine(std::string_view page, std::string_view name,
                 const std::function<void(std::string_view labels, double value)>& use) {
  while (!page.empty()) {
    const size_t end = std::min(page.find('\n'), page.size());
    std::string_view line = page.substr(0, end);
    page.remove_prefix(std::min(end + 1, page.size()));
    if (!line.starts_with(name)) continue;
    line.remove_prefix(name.size());
    std::string_view labels;
    if (line.starts_with('{')) {
      const size_t close = line.rfind('}');
      if (close == std::string_view::npos) continue;
      labels = line.substr(1, close - 1);
      line.remove_prefix(close + 1);
    }
    if (!line.starts_with(' ')) continue;  // Another metric whose name begins alike.
    line.remove_prefix(1);
    double value = 0;
    if (std::from_chars(line.data(), line.data() + line.size(), value).ec == std::errc()) {
      use(labels, value);
    }
  }
}

}  // namespace

std::optional<double> MetricOf(std::string_view page, std::string_view name) {
  std::optional<double> sum;
  ForEachLine(page, name, [&](std::string_view, double value) { sum = sum.value_or(0) + value; });
  return sum;
}

std::map<std::string, double> MetricByLabel(std::string_view page, std::string_view name,
                                            std::string_view label) {
  std::map<std::string, double> values;
  const std::string key = std::string(label) + "=\"";
  ForEachLine(page, name, [&](std::string_view labels, double value) {
    const size_t begin = labels.find(key);
    if (begin == std::string_view::npos || (begin > 0 && labels[begin - 1] != ',')) return;
    const std::string_view rest = labels.substr(begin + key.size());
    values[std::string(rest.substr(0, rest.find('"')))] += value;
  });
  return values;
}

}  // namespace fathom::client
