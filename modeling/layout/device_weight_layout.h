// modeling/layout/device_weight_layout.h: where each weight of one rank lies in the GPU's "weights"
// arena, and from which rows of which stored tensors it is made. Matrices are row-major [n][k] in
// the device's type, norms and biases are fp32; each begins at a multiple of 256 bytes. Rows that
// one thread needs together are 8 apart (kernels/cuda/linear/paired_rows.h). Pure; any thread; no
// CUDA needed.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/tensor.h"
#include "modeling/spec/operands.h"
#include "modeling/spec/rank_model.h"

namespace fathom {

inline constexpr int64_t kDeviceWeightAlignment = 256;
// The GEMM of the LM head computes whole tiles of weight rows. So rows of zeros follow the rows of
// the vocabulary, and their logits are never read.
inline constexpr int64_t kHeadRowsUnit = 16;
// The rows of the LM head's matrix for `vocab_rows` rows of the vocabulary; also the floats in a
// row of logits.
constexpr int64_t HeadRows(int64_t vocab_rows) {
  return (vocab_rows + kHeadRowsUnit - 1) / kHeadRowsUnit * kHeadRowsUnit;
}

// Where the rows of a stored tensor's slice go: into a sequence of pairings of 2 * pairs rows, of
// which the slice is the rows from `base`; with pairs 0 the rows keep their order.
struct RowMap {
  int64_t first_row = 0;  // Row of the region where the first pairing, or the slice, begins.
  int64_t pairs = 0;
  int64_t base = 0;
  // The region's row of the slice's row `row`.
  int64_t ToRegion(int64_t row) const;
  // The slice's row of the region's row `row`. It is outside [0, rows of the slice) if the region's
  // row belongs to another part.
  int64_t FromRegion(int64_t row) const;
};

inline constexpr int32_t kNoLayer = -1;  // For parameters outside the layers.

// A slice of a stored tensor.
struct WeightPart {
  Parameter parameter;
  TensorSlice slice;
  RowMap map;
};

struct WeightRegion {
  Operand operand = Operand::kEmbedding;
  int32_t layer = kNoLayer;  // Index in the model.
  std::string name;          // For messages: "embedding", "layers.3.qkv", ...
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t padding_rows = 0;  // Rows of zeros after the rows.
  kernels::DType dtype = kernels::DType::kF32;
  int64_t offset = 0;  // In the arena.
  std::vector<WeightPart> parts;
  int64_t row_bytes() const { return cols * static_cast<int64_t>(kernels::SizeOf(dtype)); }
  int64_t bytes() const { return rows * row_bytes(); }  // Without the padding.
  int64_t padding_bytes() const { return padding_rows * row_bytes(); }
};

// The source of a region's row: a row of the whole stored tensor of a part.
struct SourceRow {
  const WeightPart* part = nullptr;
  int64_t row = 0;
};
SourceRow SourceOf(const WeightRegion& region, int64_t row);

struct DeviceWeightLayout {
  // The rank's operands (modeling/spec/operands.h) in the order of the forward pass. A Llama-like
  // model has embedding; in each layer attention_norm, qkv, qkv_bias, q_norm, k_norm, o, ffn_norm,
  // gate_up, down; then final_norm and head (not with tied embeddings). A stage has those of its
  // layers and ends; with tied embeddings the embedding of a later stage is the rank's rows of the
  // LM head, after the final norm.
  std::vector<WeightRegion> regions;
  int64_t bytes = 0;
  // nullptr: the model has no such region.
  const WeightRegion* Find(Operand operand, int32_t layer = kNoLayer) const;
};

// INVALID_ARGUMENT for sizes that the GPU's kernels do not support.
absl::Status CheckDeviceWeights(const RankModel& model);
// REQUIRES: CheckDeviceWeights(model) is OK; `dtype` is kBf16 or kF16. `bytes` is the same for
// every rank of a group.
DeviceWeightLayout LayOutDeviceWeights(const RankModel& model, kernels::DType dtype);

}  // namespace fathom
