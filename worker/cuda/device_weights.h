// worker/cuda/device_weights.h: the weights of one rank in the GPU's arena "weights", as the
// kernels read them. Matrices are row-major [n][k] in `dtype`; norms and biases are fp32. The rows
// of qkv and gate_up are in the paired order of kernels/cuda/linear/paired_rows.h: each q head and
// each k head is one pairing with pairs = head_dim / 2, v heads are as in the checkpoint, gate_up
// is one pairing with pairs = ffn. Biases are in the order of their rows.
// modeling/layout/device_weight_layout.h says where each matrix is. Thread: one thread makes it (it
// starts readers and joins them); afterwards it is constant.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/tensor.h"
#include "modeling/checkpoint/checkpoint.h"
#include "modeling/layout/device_weight_layout.h"
#include "modeling/spec/rank_model.h"

namespace fathom::worker {

struct DeviceLayer {
  const float* attention_norm = nullptr;  // [hidden]
  const void* qkv = nullptr;              // [(heads + 2 kv_heads) head_dim][hidden]
  const float* qkv_bias = nullptr;        // In the same rows; null: the model has none.
  const float* q_norm = nullptr;          // [head_dim]; null: the model has none.
  const float* k_norm = nullptr;
  const void* o = nullptr;          // [hidden][heads head_dim]
  const float* ffn_norm = nullptr;  // [hidden]
  const void* gate_up = nullptr;    // [2 ffn][hidden]
  const void* down = nullptr;       // [hidden][ffn]
};

// What the rank's stage has; null: it has none.
struct DeviceWeights {
  kernels::DType dtype = kernels::DType::kBf16;
  const void* embedding = nullptr;    // [vocab][hidden], all of it on each rank of the first stage.
  std::vector<DeviceLayer> layers;    // Of the stage.
  const float* final_norm = nullptr;  // [hidden]
  // [vocab of the rank][hidden], then zeros up to HeadRows; tied: rows of the embedding.
  const void* head = nullptr;
};

// Measurements of one load, for the timeline of a start. The times of the readers are means over
// the readers.
struct LoadReport {
  int64_t bytes = 0;  // Bytes on the device.
  int readers = 0;
  int64_t pin_us = 0;      // Allocating the staging buffers.
  int64_t read_us = 0;     // Reading from files to staging buffers.
  int64_t convert_us = 0;  // Converting, if the stored type is not the wanted one.
  int64_t copy_us = 0;     // Waiting for copies to the device.
  int64_t scan_us = 0;     // Searching for non-finite values; for random weights: making them.
  int64_t total_us = 0;
};

struct LoadOptions {
  int readers = 0;                // 0: as many as the machine has cores, at most 16.
  int64_t piece_bytes = 4 << 20;  // Each reader has two pinned buffers of this size.
};

// Loads the slices of this rank into `arena` of the current device. Errors: those of the checkpoint
// (DATA_LOSS names the file and the tensor of a non-finite value), and INVALID_ARGUMENT for sizes
// that the kernels cannot compute or for a value that `dtype` cannot represent. A CUDA error ends
// the process. REQUIRES: `dtype` is kBf16 or kF16; `arena` is 256-byte aligned and has the bytes of
// LayOutDeviceWeights().
absl::StatusOr<DeviceWeights> LoadDeviceWeights(const RankModel& model,
                                                const Checkpoint& checkpoint, kernels::DType dtype,
                                                void* arena, int64_t arena_bytes,
                                                LoadReport* report,
                                                const LoadOptions& options = {});

}  // namespace fathom::worker
