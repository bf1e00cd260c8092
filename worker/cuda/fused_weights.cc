#include "worker/cuda/fused_weights.h"

#include <utility>

#include "kernels/cuda/attention/decode_attention_config.h"
#include "modeling/layout/device_weight_layout.h"
#include "worker/cuda/cuda_check.h"

namespace fathom::worker {

namespace cuda = kernels::cuda;

namespace {

constexpr int kSkinnyRows[] = {1, 8, 16};

// The sizes of the matrices of a layer.
struct LayerShapes {
  LayerShapes(const RankLayer& layer, int32_t model_hidden)
      : hidden(model_hidden),
        q(static_cast<int>(layer.attention.q_rows())),
        qkv(static_cast<int>(layer.attention.qkv_rows())),
        ffn(layer.mlp.width) {}
  int hidden, q, qkv, ffn;
};

bool FusesQkv(const RankLayer& layer) {
  return !layer.Has(ParameterRole::kQNorm) && !layer.Has(ParameterRole::kKNorm);
}

// The ring of o is filled with weights while attention still runs. Thread blocks of both share a
// multiprocessor, unless that leaves o less than two fifths of what a thread block reads (measured
// by layer_bench: the 7B shape gains 1.3 to 1.8 % of a layer; 13B and 33B, whose thread blocks read
// more, lose 0.3 %).
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

void PrepareWeight(const cuda::SkinnyConfig& tiles, kernels::DType dtype, const void* w, int n,
                   int k, cuda::SkinnyWeight* weight) {
  FATHOM_CUDA(cuda::PrepareSkinny(tiles, dtype, w, n, k, weight));
}

// nullopt: the op cannot compute the shapes of the layer.
std::optional<SkinnyWeights::Layer> PrepareSkinnyLayer(const RankLayer& layer, const LayerShapes& s,
                                                       const DeviceLayer& weights,
                                                       kernels::DType dtype, int rows,
                                                       const cuda::SkinnyDevice& device) {
  const AttentionSpec& heads = layer.attention;
  const auto attention =
      cuda::DecodeAttentionPickConfig(heads.heads, heads.kv_heads, heads.head_dim);
  const cuda::SkinnyDevice beside_attention =
      cuda::SkinnyBeside(device, attention ? attention->shared_bytes : 0);
  // For up to 8 rows: attention launches so many thread blocks that overlapping it with qkv pays,
  // so shared memory is reserved for it.
  const auto qkv =
      cuda::SkinnyPickConfig({rows, s.qkv, s.hidden, true}, rows == 8 ? beside_attention : device);
  const auto o = PickO({rows, s.hidden, s.q, false}, device, beside_attention);
  const auto gate_up = cuda::SkinnyPickConfig({rows, 2 * s.ffn, s.hidden, true}, device);
  const auto down = cuda::SkinnyPickConfig({rows, s.hidden, s.ffn, false}, device);
  if (!qkv || !o || !gate_up || !down) return std::nullopt;
  SkinnyWeights::Layer prepared;
  prepared.qkv_fused = FusesQkv(layer);
  PrepareWeight(*qkv, dtype, weights.qkv, s.qkv, s.hidden, &prepared.qkv);
  PrepareWeight(*o, dtype, weights.o, s.hidden, s.q, &prepared.o);
  PrepareWeight(*gate_up, dtype, weights.gate_up, 2 * s.ffn, s.hidden, &prepared.gate_up);
  PrepareWeight(*down, dtype, weights.down, s.hidden, s.ffn, &prepared.down);
  return prepared;
}

}  // namespace

std::vector<std::unique_ptr<SkinnyWeights>> PrepareSkinnyWeights(const RankModel& model,
                                                                 const DeviceWeights& weights,
                                                                 const FusedDevice& fused) {
  const cuda::SkinnyDevice device{fused.sm, fused.sms, fused.shared_bytes};
  const int hidden = model.hidden, head_rows = static_cast<int>(HeadRows(model.vocab_rows));
  std::vector<std::unique_ptr<SkinnyWeights>> all;
  for (const int rows : kSkinnyRows) {
    auto skinny = std::make_unique<SkinnyWeights>();
    skinny->rows = rows;
    for (size_t i = 0; i < model.layers.size(); ++i) {
      const RankLayer& layer = model.layers[i];
      auto prepared = PrepareSkinnyLayer(layer, {layer, hidden}, weights.layers[i], weights.dtype,
                                         rows, device);
      if (!prepared) break;
      skinny->layers.push_back(*std::move(prepared));
    }
    if (skinny->layers.size() < model.layers.size()) continue;
    const auto head = cuda::SkinnyPickConfig({rows, head_rows, hidden, true}, device);
    if (head) {
      PrepareWeight(*head, weights.dtype, weights.head, head_rows, hidden, &skinny->head.emplace());
    }
    all.push_back(std::move(skinny));
  }
  return all;
}

std::unique_ptr<MediumWeights> PrepareMediumWeights(const RankModel& model,
                                                    const DeviceWeights& weights) {
  cuda::MediumDevice device;
  FATHOM_CUDA(cuda::QueryMediumDevice(&device));
  auto medium = std::make_unique<MediumWeights>();
  const auto prepare = [&](cuda::MediumOp op, const void* w, int n, int k,
                           cuda::MediumWeight* weight) {
    return cuda::PrepareMedium(op, device, weights.dtype, w, n, k, weight) == cudaSuccess;
  };
  for (size_t i = 0; i < model.layers.size(); ++i) {
    const LayerShapes s(model.layers[i], model.hidden);
    const DeviceLayer& layer = weights.layers[i];
    MediumWeights::Layer& prepared = medium->layers.emplace_back();
    prepared.qkv_fused = FusesQkv(model.layers[i]);
    if (!prepare(cuda::MediumOp::kQkv, layer.qkv, s.qkv, s.hidden, &prepared.qkv) ||
        !prepare(cuda::MediumOp::kResidual, layer.o, s.hidden, s.q, &prepared.o) ||
        !prepare(cuda::MediumOp::kGateUp, layer.gate_up, 2 * s.ffn, s.hidden, &prepared.gate_up) ||
        !prepare(cuda::MediumOp::kResidual, layer.down, s.hidden, s.ffn, &prepared.down)) {
      return nullptr;
    }
  }
  cuda::MediumWeight head;
  const int head_rows = static_cast<int>(HeadRows(model.vocab_rows));
  if (prepare(cuda::MediumOp::kHead, weights.head, head_rows, model.hidden, &head)) {
    medium->head = head;
  }
  return medium;
}

}  // namespace fathom::worker
