// The spec that most architectures use: equal layers of grouped attention and a gated MLP.
#include <utility>

#include "common/status.h"
#include "modeling/architectures/architecture.h"

namespace fathom {
namespace {

Parameter Matrix(ParameterRole role, std::string name, int64_t rows, int64_t cols, Split split) {
  return {.role = role, .name = std::move(name), .shape = {rows, cols}, .split = split};
}

Parameter Vector(ParameterRole role, std::string name, int64_t count, Split split = Split::kWhole) {
  return {.role = role,
          .name = std::move(name),
          .shape = {count},
          .split = split,
          .precision = Precision::kVector};
}

AttentionSpec AttentionOf(const ModelConfig& config) {
  return {
      .kind = AttentionKind::kGrouped,
      .heads = config.heads,
      .kv_heads = config.kv_heads,
      .head_dim = config.head_dim,
      .planes = {{"k", config.kv_heads, config.head_dim}, {"v", config.kv_heads, config.head_dim}}};
}

LayerSpec LayerOf(const ModelConfig& config, int32_t index) {
  LayerSpec layer{.attention = AttentionOf(config),
                  .mlp = {.kind = MlpKind::kDense, .width = config.ffn}};
  const int64_t hidden = config.hidden;
  const int64_t q_rows = layer.attention.q_rows(), kv_rows = layer.attention.kv_rows();
  const std::string prefix = fmt::format("model.layers.{}.", index);
  const std::string attention = prefix + "self_attn.", mlp = prefix + "mlp.";
  const auto add = [&](Parameter parameter) {
    if (parameter.split == Split::kKvRows) parameter.kv_heads = config.kv_heads;
    layer.parameters.push_back(std::move(parameter));
  };
  add(Vector(ParameterRole::kAttentionNorm, prefix + "input_layernorm.weight", hidden));
  add(Matrix(ParameterRole::kQ, attention + "q_proj.weight", q_rows, hidden, Split::kRows));
  add(Matrix(ParameterRole::kK, attention + "k_proj.weight", kv_rows, hidden, Split::kKvRows));
  add(Matrix(ParameterRole::kV, attention + "v_proj.weight", kv_rows, hidden, Split::kKvRows));
  if (config.qkv_bias) {
    add(Vector(ParameterRole::kQBias, attention + "q_proj.bias", q_rows, Split::kRows));
    add(Vector(ParameterRole::kKBias, attention + "k_proj.bias", kv_rows, Split::kKvRows));
    add(Vector(ParameterRole::kVBias, attention + "v_proj.bias", kv_rows, Split::kKvRows));
  }
  if (config.qk_norm) {
    add(Vector(ParameterRole::kQNorm, attention + "q_norm.weight", config.head_dim));
    add(Vector(ParameterRole::kKNorm, attention + "k_norm.weight", config.head_dim));
  }
  add(Matrix(ParameterRole::kO, attention + "o_proj.weight", hidden, q_rows, Split::kCols));
  add(Vector(ParameterRole::kFfnNorm, prefix + "post_attention_layernorm.weight", hidden));
  add(Matrix(ParameterRole::kGate, mlp + "gate_proj.weight", config.ffn, hidden, Split::kRows));
  add(Matrix(ParameterRole::kUp, mlp + "up_proj.weight", config.ffn, hidden, Split::kRows));
  add(Matrix(ParameterRole::kDown, mlp + "down_proj.weight", hidden, config.ffn, Split::kCols));
  return layer;
}

}  // namespace

ModelSpec DecoderSpec(const ModelConfig& config) {
  ModelSpec spec;
  spec.architecture = config.architecture;
  spec.hidden = config.hidden;
  spec.vocab = config.vocab;
  spec.context = config.context;
  spec.rms_eps = config.rms_eps;
  spec.rope = config.rope;
  spec.rope_dim = config.head_dim;
  spec.embedding = Matrix(ParameterRole::kEmbedding, "model.embed_tokens.weight", config.vocab,
                          config.hidden, Split::kWhole);
  for (int32_t i = 0; i < config.layers; ++i) spec.layers.push_back(LayerOf(config, i));
  spec.final_norm = Vector(ParameterRole::kFinalNorm, "model.norm.weight", config.hidden);
  constexpr const char* kHead = "lm_head.weight";
  if (config.tied_embeddings) {
    spec.spare_head = kHead;
  } else {
    spec.lm_head = Matrix(ParameterRole::kLmHead, kHead, config.vocab, config.hidden, Split::kRows);
  }
  return spec;
}

}  // namespace fathom
