// The rule of a thinking budget: the state that a device keeps gives the tokens that the whole
// output gives.
#include "kernels/thinking.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <random>
#include <string>
#include <vector>

namespace fathom::kernels {
namespace {

constexpr int32_t kBegin = 1, kEnd = 2;

// From the text of docs/NUMERICS.md: whether the next token after `output` is forced.
bool Forced(const std::vector<int32_t>& output, bool opened, int32_t budget) {
  size_t first = 0;  // Of the reasoning.
  if (!opened) {
    if (output.empty() || output[0] != kBegin) return false;
    first = 1;
  }
  for (size_t i = first; i < output.size(); ++i) {
    if (output[i] == kEnd) return false;
  }
  return output.size() - first >= static_cast<size_t>(budget);
}

TEST(Thinking, TheStateIsThatOfTheOutput) {
  const char* given = std::getenv("FATHOM_SEED");
  const uint64_t seed = given == nullptr ? 17 : std::strtoull(given, nullptr, 10);
  SCOPED_TRACE("FATHOM_SEED=" + std::to_string(seed));
  std::mt19937_64 random(seed);
  int forced = 0;
  for (int i = 0; i < 20000; ++i) {
    const bool opened = random() % 2 == 0;
    const auto budget = static_cast<int32_t>(random() % 6);
    ThinkingSlot slot{kBegin, kEnd, budget, opened ? 0 : kThinkingWaits};
    std::vector<int32_t> output;
    for (int32_t position = 0; position < 12; ++position) {
      const bool forces = ForcesThinkingEnd(slot, position);
      ASSERT_EQ(forces, Forced(output, opened, budget)) << position;
      forced += forces ? 1 : 0;
      const auto drawn = static_cast<int32_t>(random() % 4);
      const int32_t token = forces ? slot.end : drawn;
      slot.state = ThinkingAfter(slot, token, position);
      output.push_back(token);
    }
  }
  EXPECT_GT(forced, 1000);
}

TEST(Thinking, NoBudgetForcesNothing) {
  ThinkingSlot slot;
  for (int32_t position = 0; position < 5; ++position) {
    EXPECT_FALSE(ForcesThinkingEnd(slot, position));
    slot.state = ThinkingAfter(slot, position - 1, position);
  }
}

}  // namespace
}  // namespace fathom::kernels
