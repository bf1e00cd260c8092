// modeling/config/rope_spec.h: the rotary embedding of a model, as the kernels' tables take it.
// Pure.
#pragma once

#include "kernels/rope_kv_write.h"
#include "modeling/config/model_config.h"

namespace fathom::worker {

inline kernels::RopeSpec RopeSpecOf(const ModelConfig& config) {
  kernels::RopeSpec spec{.head_dim = config.head_dim, .theta = config.rope.theta};
  switch (config.rope.scaling) {
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
  spec.factor = config.rope.factor;
  spec.low_freq_factor = config.rope.low_freq_factor;
  spec.high_freq_factor = config.rope.high_freq_factor;
  spec.original_context = config.rope.original_context;
  spec.beta_fast = config.rope.beta_fast;
  spec.beta_slow = config.rope.beta_slow;
  spec.truncate = config.rope.truncate;
  spec.attention_factor = config.rope.attention_factor;
  return spec;
}

}  // namespace fathom::worker
