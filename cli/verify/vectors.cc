#include "cli/verify/vectors.h"

#include <algorithm>
#include <nlohmann/json.hpp>

namespace fathom::client {

absl::StatusOr<VectorCounts> CheckVectors(
    std::string_view jsonl, const std::string& origin,
    const std::function<std::optional<std::string>(const nlohmann::ordered_json&)>& check,
    const std::function<void(const std::string&)>& tell) {
  VectorCounts counts;
  int64_t number = 0;
  for (size_t start = 0; start < jsonl.size();) {
    const size_t end = std::min(jsonl.find('\n', start), jsonl.size());
    const std::string_view line = jsonl.substr(start, end - start);
    start = end + 1;
    number += 1;
    if (line.empty()) continue;
    try {
      const auto difference = check(nlohmann::ordered_json::parse(line));
      if (!difference) continue;
      counts.total += 1;
      counts.exact += difference->empty() ? 1 : 0;
      if (!difference->empty()) tell(fmt::format("{}:{}: {}", origin, number, *difference));
    } catch (const nlohmann::ordered_json::exception& error) {
      return Invalid("{}:{}: {}", origin, number, error.what());
    }
  }
  if (counts.total == 0) return Invalid("{} holds no vectors for this check", origin);
  return counts;
}

std::string TextDifference(std::string_view got, std::string_view want) {
  const auto [g, w] = std::mismatch(got.begin(), got.end(), want.begin(), want.end());
  const auto at = static_cast<size_t>(g - got.begin());
  return fmt::format("got '{}', recorded '{}' from byte {} on", got.substr(at, 40),
                     want.substr(at, 40), at);
}

}  // namespace fathom::client
