#include "kernels/cuda/attention/prefill_attention_config.h"

#include <cstdint>

namespace fathom::kernels::cuda {

PrefillConfig PrefillPickConfig(int sm, int head_dim, int64_t plane_rows) {
  if (sm == 90 && head_dim == 128 && plane_rows <= INT32_MAX) {
    return {PrefillKernel::kWgmma, 128};
  }
  return {PrefillKernel::kGeneric, 64};
}

}  // namespace fathom::kernels::cuda
