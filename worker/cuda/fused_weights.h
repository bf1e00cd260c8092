// worker/cuda/fused_weights.h: the weights as the fused GEMMs stream them
// (kernels/cuda/linear/skinny.h, medium.h): tensor maps and tiles of each layer, made once after
// loading. Thread: the engine thread makes it; afterwards it is constant.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "kernels/cuda/linear/medium.h"
#include "kernels/cuda/linear/skinny.h"
#include "modeling/spec/rank_model.h"
#include "worker/cuda/device_weights.h"

namespace fathom::worker {

// For steps of at most `rows` rows.
struct SkinnyWeights {
  struct Layer {
    bool qkv_fused = false;  // Only without norms per head.
    kernels::cuda::SkinnyWeight qkv, o, gate_up, down;
  };
  int32_t rows = 0;
  std::vector<Layer> layers;
  std::optional<kernels::cuda::SkinnyWeight> head;
};

// For steps of at most kMediumRowsMax rows.
struct MediumWeights {
  struct Layer {
    bool qkv_fused = false;  // Only without norms per head.
    kernels::cuda::MediumWeight qkv, o, gate_up, down;
  };
  std::vector<Layer> layers;
  std::optional<kernels::cuda::MediumWeight> head;
};

struct FusedDevice {
  int sm = 0;
  int sms = 0;
  int shared_bytes = 0;  // The most that one thread block may have.
};

// In ascending order of `rows`. Empty if the op cannot compute the shapes of one of the layers.
std::vector<std::unique_ptr<SkinnyWeights>> PrepareSkinnyWeights(const RankModel& model,
                                                                 const DeviceWeights& weights,
                                                                 const FusedDevice& device);
// Null if the op cannot compute the shapes of one of the layers.
std::unique_ptr<MediumWeights> PrepareMediumWeights(const RankModel& model,
                                                    const DeviceWeights& weights);

}  // namespace fathom::worker
