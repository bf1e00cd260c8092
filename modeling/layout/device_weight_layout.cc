#include "modeling/layout/device_weight_layout.h"

#include <algorithm>
#include <utility>

#include "common/check.h"
#include "common/status.h"
#include "kernels/cuda/linear/paired_rows.h"

namespace fathom {
namespace {

using kernels::DType;

// Where the rows of a part go that has `rows_before` rows above it. Each q and k head is a pairing
// of its own; gate and up are one pairing.
RowMap MapOf(ParameterRole role, int64_t rows_before, int64_t rows, const RankLayer& layer) {
  const int64_t head_pairs = layer.attention.head_dim / 2;
  switch (role) {
    case ParameterRole::kQ:
    case ParameterRole::kK:
    case ParameterRole::kQBias:
    case ParameterRole::kKBias:
      return {.first_row = rows_before, .pairs = head_pairs, .base = 0};
    case ParameterRole::kGate:
    case ParameterRole::kUp:
      return {.first_row = 0, .pairs = rows, .base = rows_before};
    default:
      return {.first_row = rows_before, .pairs = 0, .base = 0};
  }
}

// Lays out one region after the other.
class Layout {
 public:
  Layout(const RankModel& model, DType dtype) : model_(model), dtype_(dtype) {}

  DeviceWeightLayout Make() {
    if (model_.embedding && model_.is_first_stage()) {
      AddOne(*model_.embedding, model_.tied() ? EmbeddingPadding() : 0);
    }
    for (const RankLayer& layer : model_.layers) AddLayer(layer);
    if (model_.final_norm) AddOne(*model_.final_norm, 0);
    if (model_.lm_head) {
      AddOne(*model_.lm_head, HeadRows(model_.vocab_rows) - model_.lm_head->slice.rows());
    } else if (model_.tied() && !model_.is_first_stage()) {
      const TensorSlice rows = model_.HeadRowsOfTied();
      AddOne({model_.embedding->parameter, rows}, HeadRows(model_.vocab_rows) - rows.rows());
    }
    return std::move(layout_);
  }

 private:
  // With tied embeddings the last rank's LM head reads these rows behind the embedding.
  int64_t EmbeddingPadding() const {
    const int64_t last = int64_t{model_.vocab_rows} * (model_.place.tp - 1);
    return std::max<int64_t>(0, last + HeadRows(model_.vocab_rows) - model_.vocab);
  }

  void AddOne(const RankParameter& one, int64_t padding_rows) {
    const Operand operand = OperandOf(one.parameter.role);
    Add({.operand = operand,
         .name = std::string(NameOf(operand)),
         .padding_rows = padding_rows,
         .parts = {{one.parameter, one.slice, RowMap{}}}});
  }

  void AddLayer(const RankLayer& layer) {
    for (const StackedOperand& stack : OperandsOf(layer.parameters)) {
      WeightRegion region{.operand = stack.operand,
                          .layer = layer.index,
                          .name = fmt::format("layers.{}.{}", layer.index, NameOf(stack.operand))};
      int64_t rows = 0;
      for (const RankParameter* part : stack.parts) {
        const int64_t part_rows = part->slice.rows();
        region.parts.push_back(
            {part->parameter, part->slice, MapOf(part->parameter.role, rows, part_rows, layer)});
        rows += part_rows;
      }
      Add(std::move(region));
    }
  }

  // Sets the sizes and the place of a region whose parts and padding are set.
  void Add(WeightRegion region) {
    const WeightPart& first = region.parts.front();
    region.dtype = first.parameter.precision == Precision::kMatrix ? dtype_ : DType::kF32;
    region.cols = first.slice.cols();
    for (const WeightPart& part : region.parts) region.rows += part.slice.rows();
    region.offset = layout_.bytes;
    const int64_t end = layout_.bytes + region.bytes() + region.padding_bytes();
    layout_.bytes =
        (end + kDeviceWeightAlignment - 1) / kDeviceWeightAlignment * kDeviceWeightAlignment;
    layout_.regions.push_back(std::move(region));
  }

  const RankModel& model_;
  const DType dtype_;
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

const WeightRegion* DeviceWeightLayout::Find(Operand operand, int32_t layer) const {
  for (const WeightRegion& region : regions) {
    if (region.operand == operand && region.layer == layer) return &region;
  }
  return nullptr;
}

absl::Status CheckDeviceWeights(const RankModel& model) {
  for (const RankLayer& layer : model.layers) {
    const int32_t head_dim = layer.attention.head_dim, ffn = layer.mlp.width;
    if (head_dim % 16 == 0 && ffn % 8 == 0 && model.hidden % 8 == 0) continue;
    return Invalid(
        "head_dim {}, intermediate_size {} of {} ranks and hidden_size {}: on a GPU head_dim must "
        "be "
        "a multiple of 16, a rank's part of intermediate_size and hidden_size of 8; use --device "
        "cpu",
        head_dim, int64_t{ffn} * model.place.tp, model.place.tp, model.hidden);
  }
  return absl::OkStatus();
}

DeviceWeightLayout LayOutDeviceWeights(const RankModel& model, DType dtype) {
  FATHOM_CHECK(dtype != DType::kF32 && CheckDeviceWeights(model).ok());
  return Layout(model, dtype).Make();
}

}  // namespace fathom
