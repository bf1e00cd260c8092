// cli/verify/vectors.h: checks recorded vectors of tokenizers and chat templates, one JSON object
// in each line. Pure.
#pragma once

#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "common/status.h"

namespace fathom::client {

inline constexpr int64_t kVectorsBytesMax = 256 << 20;  // The limit of a file of vectors.

struct VectorCounts {
  int64_t total = 0;
  int64_t exact = 0;
};

// Calls `check` for each line. nullopt: the vector does not apply; "": equal; otherwise the
// difference. `tell` gets "origin:line: ..." for each difference. INVALID_ARGUMENT for a line that
// is no JSON object or lacks a key, and if no vector applied.
absl::StatusOr<VectorCounts> CheckVectors(
    std::string_view jsonl, const std::string& origin,
    const std::function<std::optional<std::string>(const nlohmann::ordered_json&)>& check,
    const std::function<void(const std::string&)>& tell);

// "got '...', recorded '...' from byte 12 on".
std::string TextDifference(std::string_view got, std::string_view want);

}  // namespace fathom::client
