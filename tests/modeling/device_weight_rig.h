// tests/modeling/device_weight_rig.h: helpers for tests of weights on a GPU: small models of every
// variant, and the expected value of each element of the arena, computed with Checkpoint::Load and
// PairedRow, which the loaders do not use.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/tensor.h"
#include "modeling/checkpoint/checkpoint.h"
#include "modeling/config/model_config.h"
#include "modeling/layout/device_weight_layout.h"
#include "tests/modeling/model_files.h"

namespace fathom::testing {

struct WeightVariant {
  std::string_view name;
  std::string_view architecture = "LlamaForCausalLM";
  std::string_view model_type = "llama";
  int32_t hidden = 64;
  int32_t heads = 4;
  int32_t kv_heads = 4;
  int32_t head_dim = 16;
  int32_t ffn = 96;
  int32_t vocab = 64;
  bool tied = false;
};
// Multi-head and grouped, with biases, with q and k norms, tied, odd multiples of 16 and 8, and
// vocabularies that are no multiple of a tile.
const std::vector<WeightVariant>& WeightVariants();

// Random values with a deviation of 0.1 that `type` can hold.
ModelFiles MakeModel(const WeightVariant& variant, StoredType type, uint64_t seed);

// Stores norms and biases alternately in fp32, fp16 and bf16.
void MixVectorTypes(ModelFiles& model);

// The bits of a region's elements, row-major.
std::vector<uint32_t> WantedBits(const ModelConfig& config, const Checkpoint& checkpoint,
                                 std::string_view region, kernels::DType dtype, int32_t tp = 1,
                                 int32_t rank = 0);
// The bits at the place of the region in a copy of the arena.
std::vector<uint32_t> BitsIn(const WeightRegion& region, const std::vector<std::byte>& arena);

}  // namespace fathom::testing
