// modeling/spec/rope_spec.h: converts a model's rotary embedding into the kernels' RopeSpec. Pure.
#pragma once

#include "kernels/rope_kv_write.h"
#include "modeling/spec/rope_config.h"

namespace fathom {

// `rope_dim` is the number of elements of a head that are rotated.
inline kernels::RopeSpec RopeSpecOf(const RopeConfig& rope, int32_t rope_dim) {
  kernels::RopeSpec spec{.head_dim = rope_dim, .theta = rope.theta};
  switch (rope.scaling) {
    case RopeScaling::kNone:
      break;
    case RopeScaling::kLinear:
      spec.scaling = kernels::RopeSpec::Scaling::kLinear;
      break;
    case RopeScaling::kLlama3:
      spec.scaling = kernels::RopeSpec::Scaling::kLlama3;
      break;
    case RopeScaling::kYarn:
      spec.scaling = kernels::RopeSpec::Scaling::kYarn;
      break;
  }
  spec.factor = rope.factor;
  spec.low_freq_factor = rope.low_freq_factor;
  spec.high_freq_factor = rope.high_freq_factor;
  spec.original_context = rope.original_context;
  spec.beta_fast = rope.beta_fast;
  spec.beta_slow = rope.beta_slow;
  spec.truncate = rope.truncate;
  spec.attention_factor = rope.attention_factor;
  return spec;
}

}  // namespace fathom
