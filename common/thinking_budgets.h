// common/thinking_budgets.h: the tokens of reasoning that each effort of a request allows.
#pragma once

#include <cstdint>
#include <optional>

namespace fathom {

// nullopt: no budget. A model folder may have others (thinking_token_budgets of
// generation_config.json).
struct ThinkingBudgets {
  std::optional<int32_t> low = 1024;  // "minimal" too.
  std::optional<int32_t> medium = 8192;
  std::optional<int32_t> high;  // "xhigh" too.
  bool operator==(const ThinkingBudgets&) const = default;
};

}  // namespace fathom
