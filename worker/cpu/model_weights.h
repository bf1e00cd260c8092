// worker/cpu/model_weights.h: one rank's weights, packed for the CPU's products when they are
// loaded. Products of one input are one matrix (modeling/spec/operands.h). Matrices keep their
// stored type; norms and biases are widened to fp32, which is exact. All lie in one allocation in
// the order of the forward pass, so that decoding reads one sequential stream. Thread: constant
// after loading.
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
  const float* qkv_bias = nullptr;        // The same rows; null: the model has none.
  const float* q_norm = nullptr;          // [head_dim]; null: the model has none, like the next.
  const float* k_norm = nullptr;
  kernels::TensorView o;            // [hidden, heads head_dim]
  const float* ffn_norm = nullptr;  // [hidden]
  kernels::TensorView gate_up;      // [2 ffn, hidden]
  kernels::TensorView down;         // [hidden, ffn]
};

class ModelWeights {
 public:
  // Errors are the checkpoint's; RESOURCE_EXHAUSTED when the memory is not there. REQUIRES: the
  // rank has all layers (stages is 1).
  static absl::StatusOr<std::unique_ptr<ModelWeights>> Load(const RankModel& model,
                                                            const Checkpoint& checkpoint);
  ~ModelWeights();
  ModelWeights(const ModelWeights&) = delete;
  ModelWeights& operator=(const ModelWeights&) = delete;

  kernels::TensorView embedding;  // [vocab, hidden], row-major, whole on each rank.
  std::vector<LayerWeights> layers;
  const float* final_norm = nullptr;  // [hidden]
  kernels::TensorView head;           // [vocab of the rank, hidden]; the last's may be shorter.

  size_t bytes() const { return bytes_; }

 private:
  friend class WeightLoader;
  ModelWeights() = default;

  std::byte* arena_ = nullptr;
  size_t bytes_ = 0;
  HostTensor embedding_;  // Owns what `embedding` views.
};

}  // namespace fathom::worker
