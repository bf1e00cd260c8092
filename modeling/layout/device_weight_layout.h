// modeling/layout/device_weight_layout.h: where each weight of one rank lies in the GPU's "weights"
// arena, and which rows of which stored tensors it is made of. Matrices are row-major [n][k] in the
// device's type, norms and biases fp32; each begins at a multiple of 256 bytes. Rows that one
// thread needs together lie 8 apart (kernels/cuda/linear/paired_rows.h). Pure; any thread; no CUDA
// needed.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/tensor.h"
#include "modeling/architectures/architecture.h"
#include "modeling/config/model_config.h"

namespace fathom::worker {

inline constexpr int64_t kDeviceWeightAlignment = 256;
// The head's product has whole tiles of weight rows: the vocabulary's rows are followed by rows of
// zeros, and nobody reads their logits.
inline constexpr int64_t kHeadRowsUnit = 16;
// Rows of the head's product on each of `tp` ranks, and floats of a row of its logits.
inline int64_t HeadRows(const ModelConfig& config, int32_t tp = 1) {
  return (RowsOfRank(config.vocab, tp) + kHeadRowsUnit - 1) / kHeadRowsUnit * kHeadRowsUnit;
}

// Where the rows of a stored tensor's slice go: a sequence of pairings of 2 * pairs rows, of which
// the slice is the rows from `base`; or, with pairs 0, the rows as they are.
struct RowMap {
  int64_t first_row = 0;  // In the region: of the first pairing, or of the slice.
  int64_t pairs = 0;
  int64_t base = 0;
  // Row of the region for the slice's row `row`.
  int64_t ToRegion(int64_t row) const;
  // The slice's row that is the region's row `row`; outside of [0, rows of the slice) when that
  // belongs to another part.
  int64_t FromRegion(int64_t row) const;
};

// A slice of a stored tensor.
struct WeightPart {
  TensorSpec spec;
  TensorSlice slice;
  RowMap map;
};

struct WeightRegion {
  std::string name;  // "embedding", "layers.3.qkv", ...
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t padding_rows = 0;  // Of zeros, behind the rows.
  kernels::DType dtype = kernels::DType::kF32;
  int64_t offset = 0;  // In the arena.
  std::vector<WeightPart> parts;
  int64_t row_bytes() const { return cols * static_cast<int64_t>(kernels::SizeOf(dtype)); }
  int64_t bytes() const { return rows * row_bytes(); }  // Without the padding.
  int64_t padding_bytes() const { return padding_rows * row_bytes(); }
};

// The region's row `row`: a row of the whole stored tensor of a part.
struct SourceRow {
  const WeightPart* part = nullptr;
  int64_t row = 0;
};
SourceRow SourceOf(const WeightRegion& region, int64_t row);

struct DeviceWeightLayout {
  // In the order of the forward pass: embedding; per layer attention_norm, qkv, qkv_bias, q_norm,
  // k_norm, o, ffn_norm, gate_up, down; final_norm; head (not with tied embeddings).
  std::vector<WeightRegion> regions;
  int64_t bytes = 0;
  // nullptr: the model has none of this name.
  const WeightRegion* Find(const std::string& name) const;
};

// INVALID_ARGUMENT for sizes that the GPU's kernels do not do. REQUIRES:
// CheckTensorParallel(config, tp) is OK and dtype is kBf16 or kF16.
absl::Status CheckDeviceWeights(const ModelConfig& config, int32_t tp);
// REQUIRES: CheckDeviceWeights(config, tp) is OK; 0 <= rank < tp.
DeviceWeightLayout LayOutDeviceWeights(const ModelConfig& config, kernels::DType dtype,
                                       int32_t tp = 1, int32_t rank = 0);
// The layout's bytes; the same for each rank.
int64_t DeviceWeightsBytes(const ModelConfig& config, kernels::DType dtype, int32_t tp = 1);

}  // namespace fathom::worker
