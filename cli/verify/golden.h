// cli/verify/golden.h: recorded answers (goldens/*.jsonl, fixtures/*/goldens.jsonl), one JSON
// object in each line. Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "client/types.h"
#include "common/status.h"

namespace fathom::client {

// The best tokens of one position, best first. REQUIRES: equal lengths.
struct TopTokens {
  std::vector<TokenId> ids;
  std::vector<double> logprobs;
};

// An answer that another implementation gave greedily in fp32. Invariants of a parsed one:
// prompt_ids and output_ids are not empty; logprobs, top and gaps, if present, have one entry for
// each output id; prompt_logprobs, if present, has one entry for each prompt id, and the first one
// has no meaning.
struct Golden {
  std::string name;
  int32_t line = 0;
  // Of "messages", "tools" and "enable_thinking". Tools and arguments are JSON, or a string of it.
  std::optional<Conversation> conversation;
  std::optional<std::string> prompt;
  std::optional<std::string> rendered;
  std::vector<TokenId> prompt_ids;
  std::vector<TokenId> output_ids;
  std::optional<std::string> text;
  std::vector<double> logprobs;
  std::vector<TopTokens> top;
  std::vector<double> gaps;  // Between the two best tokens, from "margins" or the top.
  std::vector<double> prompt_logprobs;
  bool fixture = false;  // Without "rendered": sent as ids, the end token ignored.
};

// INVALID_ARGUMENT names `origin`, the line and the key.
absl::StatusOr<std::vector<Golden>> ParseGoldens(std::string_view jsonl, const std::string& origin);

}  // namespace fathom::client
