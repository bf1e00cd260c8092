// common/flag_names.h: the texts that people type: flags of other engines and the answers to them,
// the most similar flag, and sizes like "16G". Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace fathom {

// A flag of vLLM or of the DeepSeek guides, with dashes instead of underscores.
struct ForeignFlag {
  const char* name;
  const char* ours;    // The flag here, or "" if there is none.
  bool exact;          // It has the same meaning and is accepted.
  const char* answer;  // The message if it is not accepted.
};

// nullptr: the name is not in the table.
const ForeignFlag* FindForeignFlag(std::string_view name);

// The candidate with the least edit distance to `name`, or "" if more than a third of the letters
// differ.
std::string NearestName(std::string_view name, const std::vector<std::string>& candidates);

// Parses "16G", "16GiB", "512M", "1.5g", "4096" into bytes; K, M, G, T are powers of 1024. nullopt:
// not a size, negative, or too large for int64.
std::optional<int64_t> ParseBytes(std::string_view text);
// "512 MiB", for people.
std::string FormatBytes(int64_t bytes);

}  // namespace fathom
