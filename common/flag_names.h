// common/flag_names.h: what people type. Names of other engines and their answers, the nearest of
// ours, and sizes like "16G". Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace fathom {

// A flag of vLLM or of the DeepSeek guides, with dashes for underscores.
struct ForeignFlag {
  const char* name;
  const char* ours;    // The flag here, or "" when there is none.
  bool exact;          // Means the same: accepted as it is.
  const char* answer;  // Said when it is not accepted.
};

// nullptr when the name is not a known foreign one.
const ForeignFlag* FindForeignFlag(std::string_view name);

// The candidate with the least edit distance to `name`, or "" when none is near (more than a third
// of its letters differ).
std::string NearestName(std::string_view name, const std::vector<std::string>& candidates);

// "16G", "16GiB", "512M", "1.5g", "4096" -> bytes; K, M, G, T are powers of 1024. nullopt: not a
// size, negative or too large for int64.
std::optional<int64_t> ParseBytes(std::string_view text);
// "512 MiB", for people.
std::string FormatBytes(int64_t bytes);

}  // namespace fathom
