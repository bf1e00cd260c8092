#include "modeling/layout/device_weight_layout.h"

#include <algorithm>
#include <map>
#include <utility>

#include "common/check.h"
#include "common/status.h"
#include "kernels/cuda/linear/paired_rows.h"

namespace fathom::worker {
namespace {

using kernels::DType;

// Lays out one region after the other.
class Layout {
 public:
  Layout(const ModelConfig& config, DType dtype, int32_t tp, int32_t rank)
      : config_(config), dtype_(dtype), tp_(tp), rank_(rank) {
    for (TensorSpec& spec : ExpectedTensors(config)) {
      std::string name = spec.name;
      specs_.emplace(std::move(name), std::move(spec));
    }
  }

  DeviceWeightLayout Make() {
    Add("embedding", dtype_, {Part("model.embed_tokens.weight")},
        config_.tied_embeddings ? EmbeddingPadding() : 0);
    for (int32_t i = 0; i < config_.layers; ++i) AddLayer(i);
    Add("final_norm", DType::kF32, {Part("model.norm.weight")});
    if (!config_.tied_embeddings) {
      const WeightPart head = Part("lm_head.weight");
      Add("head", dtype_, {head}, HeadRows(config_, tp_) - head.slice.rows());
    }
    return std::move(layout_);
  }

 private:
  // What the last rank's head reads behind the embedding, whose rows it has.
  int64_t EmbeddingPadding() const {
    const int64_t last = RowsOfRank(config_.vocab, tp_) * (tp_ - 1);
    return std::max<int64_t>(0, last + HeadRows(config_, tp_) - config_.vocab);
  }

  void AddLayer(int32_t index) {
    const std::string to = fmt::format("layers.{}.", index);
    const std::string from = fmt::format("model.layers.{}.", index);
    const std::string attention = from + "self_attn.", mlp = from + "mlp.";
    Add(to + "attention_norm", DType::kF32, {Part(from + "input_layernorm.weight")});
    Add(to + "qkv", dtype_, QkvParts(attention, ".weight"));
    if (config_.qkv_bias) Add(to + "qkv_bias", DType::kF32, QkvParts(attention, ".bias"));
    if (config_.qk_norm) {
      Add(to + "q_norm", DType::kF32, {Part(attention + "q_norm.weight")});
      Add(to + "k_norm", DType::kF32, {Part(attention + "k_norm.weight")});
    }
    Add(to + "o", dtype_, {Part(attention + "o_proj.weight")});
    Add(to + "ffn_norm", DType::kF32, {Part(from + "post_attention_layernorm.weight")});
    WeightPart gate = Part(mlp + "gate_proj.weight"), up = Part(mlp + "up_proj.weight");
    const int64_t ffn = gate.slice.rows();
    gate.map = {.first_row = 0, .pairs = ffn, .base = 0};
    up.map = {.first_row = 0, .pairs = ffn, .base = ffn};
    Add(to + "gate_up", dtype_, {std::move(gate), std::move(up)});
    Add(to + "down", dtype_, {Part(mlp + "down_proj.weight")});
  }

  WeightPart Part(const std::string& name) const {
    const auto found = specs_.find(name);
    FATHOM_CHECK(found != specs_.end(), "no tensor {}", name);
    return {found->second, SliceOf(found->second, config_, tp_, rank_), RowMap{}};
  }

  // Each q and k head is a pairing of its own.
  std::vector<WeightPart> QkvParts(const std::string& attention, const std::string& kind) const {
    WeightPart q = Part(attention + "q_proj" + kind);
    WeightPart k = Part(attention + "k_proj" + kind);
    WeightPart v = Part(attention + "v_proj" + kind);
    const int64_t pairs = config_.head_dim / 2;
    q.map = {.first_row = 0, .pairs = pairs, .base = 0};
    k.map = {.first_row = q.slice.rows(), .pairs = pairs, .base = 0};
    v.map = {.first_row = q.slice.rows() + k.slice.rows(), .pairs = 0, .base = 0};
    return {std::move(q), std::move(k), std::move(v)};
  }

  void Add(std::string name, DType dtype, std::vector<WeightPart> parts, int64_t padding_rows = 0) {
    WeightRegion region;
    region.name = std::move(name);
    region.dtype = dtype;
    region.cols = parts.front().slice.cols();
    for (const WeightPart& part : parts) region.rows += part.slice.rows();
    region.parts = std::move(parts);
    region.padding_rows = padding_rows;
    region.offset = layout_.bytes;
    const int64_t end = layout_.bytes + region.bytes() + region.padding_bytes();
    layout_.bytes =
        (end + kDeviceWeightAlignment - 1) / kDeviceWeightAlignment * kDeviceWeightAlignment;
    layout_.regions.push_back(std::move(region));
  }

  const ModelConfig& config_;
  const DType dtype_;
  const int32_t tp_;
  const int32_t rank_;
  std::map<std::string, TensorSpec> specs_;
  DeviceWeightLayout layout_;
};

}  // namespace

int64_t RowMap::ToRegion(int64_t row) const {
  if (pairs == 0) return first_row + row;
  const int64_t at = base + row, pairing = at / (2 * pairs) * (2 * pairs);
  return first_row + pairing + kernels::cuda::PairedRow(at - pairing, pairs);
}

int64_t RowMap::FromRegion(int64_t row) const {
  const int64_t at = row - first_row;
  if (pairs == 0 || at < 0) return at;
  const int64_t pairing = at / (2 * pairs) * (2 * pairs);
  return pairing + kernels::cuda::PairedSource(at - pairing, pairs) - base;
}

SourceRow SourceOf(const WeightRegion& region, int64_t row) {
  for (const WeightPart& part : region.parts) {
    const int64_t at = part.map.FromRegion(row);
    if (at >= 0 && at < part.slice.rows()) return {&part, part.slice.row_begin + at};
  }
  FATHOM_CHECK(false, "{} has no row {}", region.name, row);
  return {};
}

const WeightRegion* DeviceWeightLayout::Find(const std::string& name) const {
  for (const WeightRegion& region : regions) {
    if (region.name == name) return &region;
  }
  return nullptr;
}

absl::Status CheckDeviceWeights(const ModelConfig& config, int32_t tp) {
  const int32_t ffn = config.ffn / tp;
  if (config.head_dim % 16 != 0 || ffn % 8 != 0 || config.hidden % 8 != 0) {
    return Invalid(
        "head_dim {}, intermediate_size {} of {} ranks and hidden_size {}: on a GPU head_dim must "
        "be "
        "a multiple of 16, a rank's part of intermediate_size and hidden_size of 8; use --device "
        "cpu",
        config.head_dim, config.ffn, tp, config.hidden);
  }
  return absl::OkStatus();
}

DeviceWeightLayout LayOutDeviceWeights(const ModelConfig& config, DType dtype, int32_t tp,
                                       int32_t rank) {
  FATHOM_CHECK(dtype != DType::kF32 && CheckDeviceWeights(config, tp).ok());
  return Layout(config, dtype, tp, rank).Make();
}

int64_t DeviceWeightsBytes(const ModelConfig& config, DType dtype, int32_t tp) {
  return LayOutDeviceWeights(config, dtype, tp, 0).bytes;
}

}  // namespace fathom::worker
