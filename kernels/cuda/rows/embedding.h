// kernels/cuda/rows/embedding.h: x[row] = table[token of row]. A token comes from the host, or it
// is the last sample of a slot. That sample is on the device only, because the step that draws it
// may still run when this step is planned.
#pragma once

#include <cstdint>

#include "kernels/cuda/base/launch.h"

namespace fathom::kernels::cuda {

struct EmbeddingArgs {
  DType dtype = DType::kBf16;
  const void* table = nullptr;           // [vocab][hidden]
  const int32_t* tokens = nullptr;       // [rows]: >= 0: an id; < 0: slot_tokens[-1 - value].
  const int32_t* slot_tokens = nullptr;  // [slots]: a slot's last sample.
  int32_t* faults = nullptr;  // [rows]: kFaultTokenRange for an id out of range (x is 0).
  void* x = nullptr;          // [rows][hidden]
  int rows = 0;
  int hidden = 0;
  int vocab = 0;
  int slots = 0;
};
cudaError_t Embedding(const LaunchContext& context, const EmbeddingArgs& args);

}  // namespace fathom::kernels::cuda
