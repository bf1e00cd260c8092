// modeling/spec/rope_config.h: how a model rotates queries and keys by their positions. Plain data;
// any thread.
#pragma once

#include <cstdint>

namespace fathom {

enum class RopeScaling { kNone, kLinear, kLlama3, kYarn };

// Rotary embedding: inverse frequencies theta^(-2i / head_dim), then scaled. Fields that the kind
// does not use stay at their defaults.
struct RopeConfig {
  double theta = 10000.0;
  RopeScaling scaling = RopeScaling::kNone;
  double factor = 1.0;            // Divides the frequencies, or some of them.
  double low_freq_factor = 1.0;   // kLlama3.
  double high_freq_factor = 4.0;  // kLlama3; > low_freq_factor.
  int32_t original_context = 0;   // kLlama3, kYarn: tokens.
  double beta_fast = 32.0;        // kYarn: turns in the original context (kernels/rope_kv_write.h).
  double beta_slow = 1.0;         // kYarn; <= beta_fast.
  bool truncate = true;           // kYarn.
  double attention_factor = 1.0;  // kYarn: multiplies cos and sin; combines all keys that set it.
  bool operator==(const RopeConfig&) const = default;
};

}  // namespace fathom
