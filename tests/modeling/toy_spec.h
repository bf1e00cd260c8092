// tests/modeling/toy_spec.h: a model as data that no architecture makes: its layers differ in
// heads, widths and KV planes, and its tensors have unusual names.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

#include "modeling/spec/model_spec.h"

namespace fathom::testing {

inline constexpr int32_t kToyHidden = 64;
inline constexpr int32_t kToyVocab = 61;
inline constexpr int32_t kToyHeadDim = 16;

struct ToyLayerSizes {
  int32_t heads = 0;
  int32_t kv_heads = 0;
  int32_t width = 0;
  // A plane of 4 elements for each head, in addition to keys and values.
  bool has_extra_plane = false;
};

inline LayerSpec ToyLayer(size_t index, const ToyLayerSizes& sizes) {
  const int32_t kv_heads = sizes.kv_heads;
  LayerSpec layer;
  layer.attention = {.heads = sizes.heads,
                     .kv_heads = kv_heads,
                     .head_dim = kToyHeadDim,
                     .planes = {{"k", kv_heads, kToyHeadDim}, {"v", kv_heads, kToyHeadDim}}};
  if (sizes.has_extra_plane) layer.attention.planes.push_back({"extra", kv_heads, 4});
  layer.mlp.width = sizes.width;
  const auto add = [&](ParameterRole role, std::string_view name, std::vector<int64_t> shape,
                       Split split) {
    const bool is_matrix = shape.size() > 1;
    layer.parameters.push_back({.role = role,
                                .name = fmt::format("toy.{}.{}", index, name),
                                .shape = std::move(shape),
                                .split = split,
                                .precision = is_matrix ? Precision::kMatrix : Precision::kVector,
                                .kv_heads = split == Split::kKvRows ? kv_heads : 0});
  };
  const int64_t q_rows = layer.attention.q_rows(), kv_rows = layer.attention.kv_rows();
  add(ParameterRole::kAttentionNorm, "n1", {kToyHidden}, Split::kWhole);
  add(ParameterRole::kQ, "q", {q_rows, kToyHidden}, Split::kRows);
  add(ParameterRole::kK, "k", {kv_rows, kToyHidden}, Split::kKvRows);
  add(ParameterRole::kV, "v", {kv_rows, kToyHidden}, Split::kKvRows);
  add(ParameterRole::kO, "o", {kToyHidden, q_rows}, Split::kCols);
  add(ParameterRole::kFfnNorm, "n2", {kToyHidden}, Split::kWhole);
  add(ParameterRole::kGate, "gate", {sizes.width, kToyHidden}, Split::kRows);
  add(ParameterRole::kUp, "up", {sizes.width, kToyHidden}, Split::kRows);
  add(ParameterRole::kDown, "down", {kToyHidden, sizes.width}, Split::kCols);
  return layer;
}

inline ModelSpec ToySpec(const std::vector<ToyLayerSizes>& layers) {
  ModelSpec spec;
  spec.architecture = "Toy";
  spec.hidden = kToyHidden;
  spec.vocab = kToyVocab;
  spec.context = 2048;
  spec.rms_eps = 1e-6;
  spec.rope_dim = kToyHeadDim;
  spec.embedding = {
      .role = ParameterRole::kEmbedding, .name = "toy.embedding", .shape = {kToyVocab, kToyHidden}};
  for (const ToyLayerSizes& sizes : layers) {
    spec.layers.push_back(ToyLayer(spec.layers.size(), sizes));
  }
  spec.final_norm = {.role = ParameterRole::kFinalNorm,
                     .name = "toy.norm",
                     .shape = {kToyHidden},
                     .precision = Precision::kVector};
  spec.lm_head = {.role = ParameterRole::kLmHead,
                  .name = "toy.head",
                  .shape = {kToyVocab, kToyHidden},
                  .split = Split::kRows};
  return spec;
}

}  // namespace fathom::testing
