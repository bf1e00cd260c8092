#include "worker/cuda/fused_weights.h"

#include <utility>

#include "kernels/cuda/attention/decode_attention_config.h"
#include "modeling/layout/device_weight_layout.h"
#include "worker/cuda/cuda_check.h"

namespace fathom::worker {

namespace cuda = kernels::cuda;

namespace {

constexpr int kSkinnyRows[] = {1, 8, 16};

struct Shapes {
  explicit Shapes(const ModelConfig& config)
      : hidden(config.hidden),
        q(config.heads * config.head_dim),
        qkv((config.heads + 2 * config.kv_heads) * config.head_dim),
        ffn(config.ffn),
        head(static_cast<int>(HeadRows(config))) {}
  int hidden, q, qkv, ffn, head;
};

// o's ring fills while attention still runs: beside its thread blocks, unless that leaves less than
// two fifths of what a thread block reads (layer_bench: 7B 1.3 to 1.8 % of a layer; 13B and 33B,
// whose blocks read more, lose 0.3).
std::optional<cuda::SkinnyConfig> PickO(const cuda::SkinnyShape& shape,
                                        const cuda::SkinnyDevice& device,
                                        const cuda::SkinnyDevice& beside_attention) {
  const auto beside = cuda::SkinnyPickConfig(shape, beside_attention);
  if (beside) {
    const int block_bytes = beside->tiles * cuda::kSkinnyTileRows * shape.k * 2;
    if (5 * beside->stages * cuda::SkinnyStageWeightBytes(*beside) >= 2 * block_bytes)
      return beside;
  }
  return cuda::SkinnyPickConfig(shape, device);
}

}  // namespace

std::vector<std::unique_ptr<SkinnyWeights>> PrepareSkinnyWeights(const ModelConfig& config,
                                                                 const DeviceWeights& weights,
                                                                 const FusedDevice& fused) {
  const Shapes s(config);
  const cuda::SkinnyDevice device{fused.sm, fused.sms, fused.shared_bytes};
  const auto attention =
      cuda::DecodeAttentionPickConfig(config.heads, config.kv_heads, config.head_dim);
  const cuda::SkinnyDevice beside_attention =
      cuda::SkinnyBeside(device, attention ? attention->shared_bytes : 0);
  std::vector<std::unique_ptr<SkinnyWeights>> all;
  for (const int rows : kSkinnyRows) {
    // Of several rows attention has so many thread blocks that they had better start beside qkv's.
    const auto qkv = cuda::SkinnyPickConfig({rows, s.qkv, s.hidden, true},
                                            rows == 8 ? beside_attention : device);
    const auto o = PickO({rows, s.hidden, s.q, false}, device, beside_attention);
    const auto gate_up = cuda::SkinnyPickConfig({rows, 2 * s.ffn, s.hidden, true}, device);
    const auto down = cuda::SkinnyPickConfig({rows, s.hidden, s.ffn, false}, device);
    const auto head = cuda::SkinnyPickConfig({rows, s.head, s.hidden, true}, device);
    if (!qkv || !o || !gate_up || !down) continue;
    auto skinny = std::make_unique<SkinnyWeights>();
    skinny->rows = rows;
    skinny->qkv_fused = !config.qk_norm;
    const auto prepare = [&](const cuda::SkinnyConfig& tiles, const void* w, int n, int k,
                             cuda::SkinnyWeight* weight) {
      FATHOM_CUDA(cuda::PrepareSkinny(tiles, weights.dtype, w, n, k, weight));
    };
    for (const DeviceLayer& layer : weights.layers) {
      SkinnyWeights::Layer& prepared = skinny->layers.emplace_back();
      prepare(*qkv, layer.qkv, s.qkv, s.hidden, &prepared.qkv);
      prepare(*o, layer.o, s.hidden, s.q, &prepared.o);
      prepare(*gate_up, layer.gate_up, 2 * s.ffn, s.hidden, &prepared.gate_up);
      prepare(*down, layer.down, s.hidden, s.ffn, &prepared.down);
    }
    if (head) prepare(*head, weights.head, s.head, s.hidden, &skinny->head.emplace());
    all.push_back(std::move(skinny));
  }
  return all;
}

std::unique_ptr<MediumWeights> PrepareMediumWeights(const ModelConfig& config,
                                                    const DeviceWeights& weights) {
  const Shapes s(config);
  cuda::MediumDevice device;
  FATHOM_CUDA(cuda::QueryMediumDevice(&device));
  auto medium = std::make_unique<MediumWeights>();
  medium->qkv_fused = !config.qk_norm;
  const auto prepare = [&](cuda::MediumOp op, const void* w, int n, int k,
                           cuda::MediumWeight* weight) {
    return cuda::PrepareMedium(op, device, weights.dtype, w, n, k, weight) == cudaSuccess;
  };
  for (const DeviceLayer& layer : weights.layers) {
    MediumWeights::Layer& prepared = medium->layers.emplace_back();
    if (!prepare(cuda::MediumOp::kQkv, layer.qkv, s.qkv, s.hidden, &prepared.qkv) ||
        !prepare(cuda::MediumOp::kResidual, layer.o, s.hidden, s.q, &prepared.o) ||
        !prepare(cuda::MediumOp::kGateUp, layer.gate_up, 2 * s.ffn, s.hidden, &prepared.gate_up) ||
        !prepare(cuda::MediumOp::kResidual, layer.down, s.hidden, s.ffn, &prepared.down)) {
      return nullptr;
    }
  }
  cuda::MediumWeight head;
  if (prepare(cuda::MediumOp::kHead, weights.head, s.head, s.hidden, &head)) medium->head = head;
  return medium;
}

}  // namespace fathom::worker
