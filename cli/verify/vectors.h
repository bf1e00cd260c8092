// cli/verify/vectors.h: recorded vectors of tokenizers and chat templates, one JSON object a line,
// and how a check of them ends. Pure.
#pragma once

#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "common/status.h"

namespace fathom::client {

inline constexpr int64_t kVectorsBytesMax = 256 << 20;  // Of a file of them.

struct VectorCounts {
  int64_t total = 0;
  int64_t exact = 0;
};

// Calls `check` for each line: nullopt = not meant, "" = exact, else what differs. `tell` gets
// "origin:line: ..." of each difference. INVALID_ARGUMENT for a line that is no JSON object or
// lacks a key, and when none was meant.
absl::StatusOr<VectorCounts> CheckVectors(
    std::string_view jsonl, const std::string& origin,
    const std::function<std::optional<std::string>(const nlohmann::ordered_json&)>& check,
    const std::function<void(const std::string&)>& tell);

// "got '...', recorded '...' from byte 12 on".
std::string TextDifference(std::string_view got, std::string_view want);

}  // namespace fathom::client
