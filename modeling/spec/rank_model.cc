#include "modeling/spec/rank_model.h"

#include <algorithm>
#include <string>

#include "common/check.h"
#include "common/status.h"
#include "modeling/spec/stages.h"

namespace fathom {
namespace {

// The kv heads (or a plane's heads) of one rank: its share, or one head that several ranks have.
int32_t HeadsOfRank(int32_t heads, int32_t tp) { return std::max(1, heads / tp); }

bool LayerFits(const LayerSpec& layer, int32_t tp) {
  const int32_t kv_heads = layer.attention.kv_heads;
  return layer.attention.heads % tp == 0 && layer.mlp.width % tp == 0 &&
         (kv_heads % tp == 0 || tp % kv_heads == 0);
}

// The first layer that does not fit; the first layer if all fit.
const LayerSpec& LayerToBlame(const ModelSpec& spec, int32_t tp) {
  const auto found = std::find_if(spec.layers.begin(), spec.layers.end(),
                                  [&](const LayerSpec& l) { return tp < 1 || !LayerFits(l, tp); });
  return found == spec.layers.end() ? spec.layers.front() : *found;
}

RankParameter Sliced(const Parameter& parameter, const RankPlace& place) {
  return {parameter, SliceOf(parameter, place.tp, place.tp_rank)};
}

RankLayer LayerOfRank(const LayerSpec& layer, int32_t index, const RankPlace& place) {
  RankLayer part;
  part.index = index;
  part.attention = layer.attention;
  part.attention.heads /= place.tp;
  part.attention.kv_heads = HeadsOfRank(part.attention.kv_heads, place.tp);
  for (KvPlane& plane : part.attention.planes) plane.heads = HeadsOfRank(plane.heads, place.tp);
  part.mlp = layer.mlp;
  part.mlp.width /= place.tp;
  for (const Parameter& parameter : layer.parameters) {
    part.parameters.push_back(Sliced(parameter, place));
  }
  return part;
}

}  // namespace

TensorSlice WholeOf(const Parameter& parameter) {
  return {.row_begin = 0, .row_end = parameter.rows(), .col_begin = 0, .col_end = parameter.cols()};
}

TensorSlice SliceOf(const Parameter& parameter, int32_t tp, int32_t rank) {
  FATHOM_CHECK(rank >= 0 && rank < tp, "tp {} rank {}", tp, rank);
  TensorSlice slice = WholeOf(parameter);
  const int64_t rows = slice.row_end, cols = slice.col_end;
  switch (parameter.split) {
    case Split::kWhole:
      break;
    case Split::kRows:
      slice.row_begin = RowsOfRank(rows, tp) * rank;
      slice.row_end = std::min(slice.row_begin + RowsOfRank(rows, tp), rows);
      break;
    case Split::kKvRows: {
      const int64_t ranks_per_part = std::max(1, tp / parameter.kv_heads);
      const int64_t parts = tp / ranks_per_part;
      slice.row_begin = rows / parts * (rank / ranks_per_part);
      slice.row_end = slice.row_begin + rows / parts;
      break;
    }
    case Split::kCols:
      slice.col_begin = cols / tp * rank;
      slice.col_end = cols / tp * (rank + 1);
      break;
  }
  return slice;
}

absl::Status CheckTensorParallel(const ModelSpec& spec, int32_t tp) {
  const auto fits = [&](int32_t n) {
    // Every rank must have a row of the vocabulary.
    const bool vocab = RowsOfRank(spec.vocab, n) * (n - 1) < spec.vocab;
    return vocab && std::all_of(spec.layers.begin(), spec.layers.end(),
                                [&](const LayerSpec& layer) { return LayerFits(layer, n); });
  };
  if (tp >= 1 && fits(tp)) return absl::OkStatus();
  const LayerSpec& layer = LayerToBlame(spec, tp);
  std::string numbers;
  for (int32_t n = 1; n <= layer.attention.heads; ++n) {
    if (fits(n)) numbers += fmt::format("{}{}", numbers.empty() ? "" : ", ", n);
  }
  return Invalid(
      "--tensor-parallel-size {} does not fit the model: it must divide num_attention_heads {} and "
      "intermediate_size {}, and divide num_key_value_heads {} or be a multiple of them; use one "
      "of {}",
      tp, layer.attention.heads, layer.mlp.width, layer.attention.kv_heads, numbers);
}

bool RankLayer::Has(ParameterRole role) const {
  return std::any_of(parameters.begin(), parameters.end(),
                     [&](const RankParameter& one) { return one.parameter.role == role; });
}

std::vector<const RankParameter*> RankModel::Parameters() const {
  std::vector<const RankParameter*> all;
  if (embedding) all.push_back(&*embedding);
  for (const RankLayer& layer : layers) {
    for (const RankParameter& parameter : layer.parameters) all.push_back(&parameter);
  }
  if (final_norm) all.push_back(&*final_norm);
  if (lm_head) all.push_back(&*lm_head);
  return all;
}

TensorSlice RankModel::HeadRowsOfTied() const {
  FATHOM_CHECK(tied() && embedding);
  TensorSlice rows = WholeOf(embedding->parameter);
  rows.row_begin = int64_t{place.tp_rank} * vocab_rows;
  rows.row_end = std::min(rows.row_begin + vocab_rows, rows.row_end);
  return rows;
}

RankModel RankOf(const ModelSpec& spec, const RankPlace& place) {
  const auto layers = static_cast<int32_t>(spec.layers.size());
  FATHOM_CHECK(
      CheckTensorParallel(spec, place.tp).ok() && place.tp_rank >= 0 && place.tp_rank < place.tp,
      "tp {} rank {}", place.tp, place.tp_rank);
  FATHOM_CHECK(place.stage >= 0 && place.stage < place.stages && place.stages <= layers,
               "stage {} of {}, {} layers", place.stage, place.stages, layers);
  RankModel model;
  static_cast<ModelTraits&>(model) = spec;
  model.place = place;
  const LayerRange range = StagesOf(spec, place.tp, place.stages)[static_cast<size_t>(place.stage)];
  for (int32_t i = range.begin; i < range.end; ++i) {
    model.layers.push_back(LayerOfRank(spec.layers[static_cast<size_t>(i)], i, place));
  }
  const bool tied_head = model.is_last_stage() && !spec.lm_head;
  if (model.is_first_stage() || tied_head) model.embedding = Sliced(spec.embedding, place);
  if (model.is_last_stage()) {
    model.final_norm = Sliced(spec.final_norm, place);
    if (spec.lm_head) model.lm_head = Sliced(*spec.lm_head, place);
  }
  model.vocab_rows = static_cast<int32_t>(RowsOfRank(spec.vocab, place.tp));
  return model;
}

int64_t LayerMatrixElements(const RankModel& model) {
  int64_t elements = 0;
  for (const RankLayer& layer : model.layers) {
    for (const RankParameter& each : layer.parameters) {
      if (each.parameter.precision == Precision::kMatrix) elements += each.slice.elements();
    }
  }
  return elements;
}

LayerWidths WidestOf(const RankModel& model) {
  LayerWidths widest;
  const auto raise = [](int64_t* most, int64_t value) { *most = std::max(*most, value); };
  for (const RankLayer& layer : model.layers) {
    raise(&widest.heads, layer.attention.heads);
    raise(&widest.kv_heads, layer.attention.kv_heads);
    raise(&widest.q_rows, layer.attention.q_rows());
    raise(&widest.qkv_rows, layer.attention.qkv_rows());
    raise(&widest.mlp, layer.mlp.width);
    int64_t gate_up_rows = 0;
    for (const RankParameter& each : layer.parameters) {
      const ParameterRole role = each.parameter.role;
      const bool before = role == ParameterRole::kGate || role == ParameterRole::kUp;
      if (before) gate_up_rows += each.slice.rows();
    }
    raise(&widest.gate_up_rows, gate_up_rows);
  }
  return widest;
}

int64_t KvBytes(std::span<const KvPlane> planes, int64_t element_bytes, int64_t tokens) {
  int64_t bytes = 0;
  for (const KvPlane& plane : planes) {
    switch (plane.kind) {
      case BlockKind::kTokens:
        bytes += tokens * plane.heads * plane.width * element_bytes;
        break;
    }
  }
  return bytes;
}

int64_t KvBytes(const RankModel& model, int64_t element_bytes, int64_t tokens) {
  int64_t bytes = 0;
  for (const RankLayer& layer : model.layers) {
    bytes += KvBytes(layer.attention.planes, element_bytes, tokens);
  }
  return bytes;
}

}  // namespace fathom
