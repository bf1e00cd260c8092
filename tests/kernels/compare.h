// tests/kernels/compare.h: helpers for the tests of ops: seeded inputs with ordinary and difficult
// values, and equality by == over outputs, which names the first difference.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#include "kernels/cpu/dispatch.h"

namespace fathom::kernels {

inline uint64_t TestSeed() {
  const char* seed = std::getenv("FATHOM_SEED");
  return seed == nullptr ? 20260 : std::strtoull(seed, nullptr, 10);
}

// kNormal: N(0, 1). kHard: also zeros, denormals and large and small exponents, whose products
// round and underflow.
enum class Values { kNormal, kHard };

inline std::vector<float> MakeValues(size_t count, Values kind, std::mt19937_64& random) {
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (float& value : values) {
    value = normal(random);
    if (kind == Values::kNormal) continue;
    switch (random() % 8) {
      case 0:
        value = 0.0f;
        break;
      case 1:
        value *= 1e-40f;
        break;
      case 2:
        value *= 1e-22f;
        break;
      case 3:
        value *= 1e6f;
        break;
      default:
        break;
    }
  }
  return values;
}

// == for every element; a NaN equals a NaN.
inline testing::AssertionResult SameValues(const std::vector<float>& got,
                                           const std::vector<float>& want) {
  if (got.size() != want.size()) return testing::AssertionFailure() << "sizes differ";
  for (size_t i = 0; i < got.size(); ++i) {
    if (got[i] == want[i] || (got[i] != got[i] && want[i] != want[i])) continue;
    return testing::AssertionFailure()
           << "element " << i << ": " << got[i] << " instead of " << want[i];
  }
  return testing::AssertionSuccess();
}

// Runs `body` with each vector instruction set of this host.
template <class Body>
void ForEachIsa(Body&& body) {
  for (const CpuIsa isa : SupportedCpuIsas()) {
    if (isa == CpuIsa::kReference) continue;
    SCOPED_TRACE(std::string(CpuIsaName(isa)) + ", FATHOM_SEED=" + std::to_string(TestSeed()));
    UseCpuIsa(isa);
    body();
  }
  UseCpuIsa(SupportedCpuIsas().back());
}

}  // namespace fathom::kernels
