// modeling/spec/model_spec.h: a model as data: its layers, what each layer computes, and every
// tensor that a checkpoint of it has. The file of an architecture makes it from a configuration
// (modeling/architectures/architecture.h). Expected tensors, slices, weight layouts, KV blocks,
// buffers, memory plans, parameter counts and floors follow from it by iteration.
// modeling/spec/rank_model.h says what one rank of a group holds. Plain data; any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/block_kind.h"
#include "modeling/spec/rope_config.h"

namespace fathom {

// What a parameter is in the model. Code that needs a certain parameter looks it up by its role and
// layer, never by its name in a file, because names differ between checkpoints.
enum class ParameterRole {
  kEmbedding,
  kAttentionNorm,
  kQ,
  kK,
  kV,
  kQBias,
  kKBias,
  kVBias,
  kQNorm,  // Of each query head, before the rotary embedding.
  kKNorm,
  kO,
  kFfnNorm,
  kGate,
  kUp,
  kDown,
  kFinalNorm,
  kLmHead,
};

// Whether the parameter is the weight of an RMSNorm, whose neutral value is 1.
constexpr bool IsNorm(ParameterRole role) {
  return role == ParameterRole::kAttentionNorm || role == ParameterRole::kQNorm ||
         role == ParameterRole::kKNorm || role == ParameterRole::kFfnNorm ||
         role == ParameterRole::kFinalNorm;
}

// How a parameter's elements are divided among the ranks of a tensor-parallel group.
enum class Split {
  kWhole,  // Every rank has all of it: norms, and the embedding (which saves a collective).
  // Rank r has the r-th of tp equal ranges of dimension 0: q, gate, up, LM head and the bias of q.
  // If tp does not divide the vocabulary, the last rank has fewer rows (RowsOfRank).
  kRows,
  // Like kRows, by kv heads. With tp > kv_heads, tp / kv_heads neighbouring ranks have the same
  // head: k, v and their biases.
  kKvRows,
  // Rank r has the r-th range of dimension 1: o and down, whose GEMMs are summed over ranks.
  kCols,
};

// Which element types of a checkpoint are accepted, and how they are used.
enum class Precision {
  kMatrix,  // One type for all matrices of the checkpoint; a device may convert it.
  kVector,  // Any float type, each tensor its own; widened to fp32.
};

// A tensor of the checkpoint.
struct Parameter {
  ParameterRole role = ParameterRole::kEmbedding;
  std::string name;            // In the checkpoint's files.
  std::vector<int64_t> shape;  // [rows, cols] of a GEMM y = W x, or [n].
  Split split = Split::kWhole;
  Precision precision = Precision::kMatrix;
  int32_t kv_heads = 0;  // For kKvRows: the heads that dimension 0 consists of.
  int64_t rows() const { return shape[0]; }
  int64_t cols() const { return shape.size() > 1 ? shape[1] : 1; }
  int64_t elements() const { return rows() * cols(); }
  bool operator==(const Parameter&) const = default;
};

// One plane of a layer's KV blocks: [block][head][token][width].
struct KvPlane {
  std::string_view name;  // "k" or "v"; a string literal.
  int32_t heads = 0;
  int32_t width = 0;
  BlockKind kind = BlockKind::kTokens;
  bool operator==(const KvPlane&) const = default;
};

// kGrouped: each key and value head serves heads / kv_heads query heads (with MHA: one).
enum class AttentionKind { kGrouped };
struct AttentionSpec {
  AttentionKind kind = AttentionKind::kGrouped;
  int32_t heads = 0;
  int32_t kv_heads = 0;
  int32_t head_dim = 0;
  std::vector<KvPlane> planes;
  int64_t q_rows() const { return int64_t{heads} * head_dim; }
  int64_t kv_rows() const { return int64_t{kv_heads} * head_dim; }
  int64_t qkv_rows() const { return q_rows() + 2 * kv_rows(); }
};

// kDense: down(silu(gate(x)) * up(x)). kSquaredRelu: down(relu(up(x))^2), without a gate.
enum class MlpKind { kDense, kSquaredRelu };
struct MlpSpec {
  MlpKind kind = MlpKind::kDense;
  int32_t width = 0;  // Rows of up, and of gate if there is one.
};

struct LayerSpec {
  AttentionSpec attention;
  MlpSpec mlp;
  std::vector<Parameter> parameters;  // In the order of the forward pass.
};

// What all layers share.
struct ModelTraits {
  std::string architecture;  // As in config.json, e.g. "LlamaForCausalLM".
  int32_t hidden = 0;
  int32_t vocab = 0;
  int32_t context = 0;  // Tokens.
  double rms_eps = 0;
  RopeConfig rope;
  int32_t rope_dim = 0;  // Elements of a head that the rotary embedding rotates.
};

struct ModelSpec : ModelTraits {
  std::vector<LayerSpec> layers;
  Parameter embedding;
  Parameter final_norm;
  std::optional<Parameter> lm_head;  // nullopt: tied; the LM head uses the embedding.
  // Tied: the name of an LM head that a checkpoint may store although it equals the embedding.
  std::optional<std::string> spare_head;
  std::vector<LayerSpec> draft_layers;  // Layers that propose tokens. No architecture has them yet.
};

// Every tensor of the model in the order of the forward pass: the embedding, the layers, the final
// norm, the LM head; then the draft layers.
std::vector<Parameter> ExpectedTensors(const ModelSpec& spec);

// The elements of the matrices that are read for every token: of all layers, and of the LM head
// (also if it is the embedding).
int64_t LayerMatrixElements(const ModelSpec& spec);
int64_t HeadMatrixElements(const ModelSpec& spec);

}  // namespace fathom
