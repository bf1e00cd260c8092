#include "modeling/architectures/architecture.h"

#include <algorithm>
#include <array>

#include "common/check.h"
#include "common/status.h"

namespace fathom::worker {

// Each is defined in modeling/architectures/<name>.cc.
extern const Architecture kLlama;
extern const Architecture kQwen2;
extern const Architecture kQwen3;

namespace {

const std::array kTable = {
    &kLlama,
    &kQwen2,
    &kQwen3,
};

}  // namespace

std::span<const Architecture* const> Architectures() { return kTable; }

const Architecture* FindArchitecture(std::string_view name) {
  const auto found = std::find_if(kTable.begin(), kTable.end(),
                                  [&](const Architecture* row) { return row->name == name; });
  return found == kTable.end() ? nullptr : *found;
}

std::vector<TensorSpec> ExpectedTensors(const ModelConfig& config) {
  const Architecture* architecture = FindArchitecture(config.architecture);
  FATHOM_CHECK(architecture != nullptr, "{} was not parsed", config.architecture);
  return architecture->tensors(config);
}

std::vector<TensorSpec> DecoderTensors(const ModelConfig& config) {
  const int64_t hidden = config.hidden;
  const int64_t q_rows = int64_t{config.heads} * config.head_dim;
  const int64_t kv_rows = int64_t{config.kv_heads} * config.head_dim;
  std::vector<TensorSpec> tensors;
  tensors.push_back({"model.embed_tokens.weight", {config.vocab, hidden}, Split::kWhole});
  for (int32_t i = 0; i < config.layers; ++i) {
    const auto add = [&, prefix = fmt::format("model.layers.{}.", i)](
                         std::string_view name, std::vector<int64_t> shape, Split split) {
      tensors.push_back({prefix + std::string(name), std::move(shape), split});
    };
    add("input_layernorm.weight", {hidden}, Split::kWhole);
    add("self_attn.q_proj.weight", {q_rows, hidden}, Split::kRows);
    add("self_attn.k_proj.weight", {kv_rows, hidden}, Split::kKvRows);
    add("self_attn.v_proj.weight", {kv_rows, hidden}, Split::kKvRows);
    if (config.qkv_bias) {
      add("self_attn.q_proj.bias", {q_rows}, Split::kRows);
      add("self_attn.k_proj.bias", {kv_rows}, Split::kKvRows);
      add("self_attn.v_proj.bias", {kv_rows}, Split::kKvRows);
    }
    if (config.qk_norm) {
      add("self_attn.q_norm.weight", {config.head_dim}, Split::kWhole);
      add("self_attn.k_norm.weight", {config.head_dim}, Split::kWhole);
    }
    add("self_attn.o_proj.weight", {hidden, q_rows}, Split::kCols);
    add("post_attention_layernorm.weight", {hidden}, Split::kWhole);
    add("mlp.gate_proj.weight", {config.ffn, hidden}, Split::kRows);
    add("mlp.up_proj.weight", {config.ffn, hidden}, Split::kRows);
    add("mlp.down_proj.weight", {hidden, config.ffn}, Split::kCols);
  }
  tensors.push_back({"model.norm.weight", {hidden}, Split::kWhole});
  if (!config.tied_embeddings) {
    tensors.push_back({"lm_head.weight", {config.vocab, hidden}, Split::kRows});
  }
  return tensors;
}

TensorSlice WholeOf(const TensorSpec& spec) {
  return {.row_begin = 0,
          .row_end = spec.shape[0],
          .col_begin = 0,
          .col_end = spec.shape.size() > 1 ? spec.shape[1] : 1};
}

TensorSlice SliceOf(const TensorSpec& spec, const ModelConfig& config, int32_t tp, int32_t rank) {
  FATHOM_CHECK(CheckTensorParallel(config, tp).ok() && rank >= 0 && rank < tp, "tp {} rank {}", tp,
               rank);
  TensorSlice slice = WholeOf(spec);
  switch (spec.split) {
    case Split::kWhole:
      break;
    case Split::kRows:
      slice.row_begin = RowsOfRank(spec.shape[0], tp) * rank;
      slice.row_end = std::min(slice.row_begin + RowsOfRank(spec.shape[0], tp), spec.shape[0]);
      break;
    case Split::kKvRows: {
      const int64_t ranks_per_part = std::max(1, tp / config.kv_heads);
      const int64_t parts = tp / ranks_per_part;
      slice.row_begin = spec.shape[0] / parts * (rank / ranks_per_part);
      slice.row_end = slice.row_begin + spec.shape[0] / parts;
      break;
    }
    case Split::kCols:
      slice.col_begin = spec.shape[1] / tp * rank;
      slice.col_end = spec.shape[1] / tp * (rank + 1);
      break;
  }
  return slice;
}

}  // namespace fathom::worker
