// worker/cpu/model_weights.h: the weights of one rank, packed for the GEMMs of the CPU when they
// are loaded. Matrices with the same input are one matrix (modeling/spec/operands.h). Matrices keep
// their stored type; norms and biases are converted to fp32, which is exact. All weights are in one
// allocation in the order of the forward pass, so that decoding reads one sequential stream.
// Thread: constant after loading.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "common/status.h"
#include "kernels/tensor.h"
#include "modeling/checkpoint/checkpoint.h"
#include "modeling/spec/rank_model.h"

namespace fathom::worker {

struct LayerWeights {
  const float* attention_norm = nullptr;  // [hidden]
  kernels::TensorView qkv;                // [(heads + 2 kv_heads) head_dim, hidden]
  const float* qkv_bias = nullptr;        // In the same rows; null: the model has none.
  const float* q_norm = nullptr;          // [head_dim]; null: the model has none, like k_norm.
  const float* k_norm = nullptr;
  kernels::TensorView o;            // [hidden, heads head_dim]
  const float* ffn_norm = nullptr;  // [hidden]
  kernels::TensorView gate_up;      // [2 ffn, hidden]
  kernels::TensorView down;         // [hidden, ffn]
};

class ModelWeights {
 public:
  // Errors: those of the checkpoint, and RESOURCE_EXHAUSTED if there is not enough memory.
  static absl::StatusOr<std::unique_ptr<ModelWeights>> Load(const RankModel& model,
                                                            const Checkpoint& checkpoint);
  ~ModelWeights();
  ModelWeights(const ModelWeights&) = delete;
  ModelWeights& operator=(const ModelWeights&) = delete;

  // [vocab, hidden], row-major, all of it on each rank of the first stage; empty in the others.
  kernels::TensorView embedding;
  std::vector<LayerWeights> layers;  // Of the stage.
  // Of the last stage; null and empty in the others.
  const float* final_norm = nullptr;  // [hidden]
  kernels::TensorView head;  // [vocab of the rank, hidden]; the last rank may have fewer rows.

  size_t bytes() const { return bytes_; }

 private:
  friend class WeightLoader;
  ModelWeights() = default;

  std::byte* arena_ = nullptr;
  size_t bytes_ = 0;
  HostTensor embedding_;  // Owns the memory of `embedding`.
};

}  // namespace fathom::worker
