// cluster/step_tokens.h: how many tokens the steps of a scheduler had, counted by buckets. The
// scheduler tells routers, which show it under the name that other engines use. Plain data.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

namespace fathom {

struct StepTokens {
  // The upper bounds of the buckets; a step with more tokens is in the last count.
  static constexpr std::array<double, 13> kBounds = {1,   8,    16,   32,   64,   128,  256,
                                                     512, 1024, 2048, 4096, 8192, 16384};
  std::array<uint64_t, kBounds.size() + 1> counts = {};
  uint64_t sum = 0;

  void Add(int64_t tokens) {
    const auto* const bound =
        std::lower_bound(kBounds.begin(), kBounds.end(), static_cast<double>(tokens));
    ++counts[static_cast<size_t>(bound - kBounds.begin())];
    sum += static_cast<uint64_t>(tokens);
  }
  bool operator==(const StepTokens&) const = default;
};

}  // namespace fathom
