// kernels/sampler_params.h: the numbers of a request by which a sampler draws, on every device
// (docs/NUMERICS.md, "Sampler"). The defaults change nothing. The names are those of
// common/sampling_fields.h, so that worker/engine/sampling.h can copy all of them.
#pragma once

#include <cstdint>

namespace fathom::kernels {

struct SamplerParams {
  float temperature = 1;  // Below canon::kTemperatureMin: the best score wins, without noise.
  int32_t top_k = 0;      // 0: off.
  float top_p = 1;        // 1: off.
  float min_p = 0;        // 0: off.
  float repetition_penalty = 1;  // 1: off.
  float presence_penalty = 0;
  float frequency_penalty = 0;
  float typical_p = 1;  // 1: off.
};

}  // namespace fathom::kernels
