// modeling/architectures/architecture.h: the table of architectures, and what each makes of a
// configuration: features and tensors. To add one: modeling/architectures/<name>.cc, one row in
// modeling/architectures/architecture.cc, one CMake line, its test (docs/STYLE.md, "Adding
// things"). A table, not registrars: a static library drops unreferenced object files. Pure; any
// thread.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "modeling/config/model_config.h"

namespace fathom::worker {

class ConfigFields;

// How a tensor's elements are shared out to the ranks of a tensor-parallel group.
enum class Split {
  kWhole,  // Every rank has all of it: norms and the embedding (which saves its collective).
  kRows,   // Rank r has the r-th of tp equal ranges of dimension 0: q, gate, up, head and q's bias.
           // Of a vocabulary that tp does not divide (RowsOfRank) the last rank has fewer rows.
  kKvRows,  // As kRows by kv heads; with tp > kv_heads, tp / kv_heads neighbours share a head: k, v
            // and their biases.
  kCols,    // Rank r has the r-th range of dimension 1: o and down, whose products are summed over
            // ranks.
};

// A tensor that a checkpoint of this configuration has, by its name in the file. Shapes are [rows,
// cols] of a product y = W x, or [n]. With tied embeddings there is no "lm_head.weight".
struct TensorSpec {
  std::string name;
  std::vector<int64_t> shape;
  Split split = Split::kWhole;
  bool operator==(const TensorSpec&) const = default;
};

// Half-open ranges of a tensor's rows and columns (a vector has one column).
struct TensorSlice {
  int64_t row_begin = 0, row_end = 0;
  int64_t col_begin = 0, col_end = 0;
  int64_t rows() const { return row_end - row_begin; }
  int64_t cols() const { return col_end - col_begin; }
  bool operator==(const TensorSlice&) const = default;
};

// What an architecture takes for keys that are missing (the defaults of its class in transformers).
struct ConfigDefaults {
  int32_t context = 0;    // max_position_embeddings
  int32_t kv_heads = 0;   // num_key_value_heads; 0: num_attention_heads, as where it is null.
  int32_t head_dim = 0;   // 0: hidden_size / num_attention_heads.
  double rms_eps = 1e-6;  // rms_norm_eps
  // Whether it reads use_sliding_window, sliding_window and max_window_layers at all.
  bool has_windows = false;
};

struct Architecture {
  std::string_view name;        // In config.json's "architectures".
  std::string_view model_type;  // What config.json's "model_type" must be.
  ConfigDefaults defaults;
  // Reads the keys that only this architecture has (errors stick to `fields`) and sets the features
  // of `config`.
  void (*configure)(ConfigFields& fields, ModelConfig& config);
  // Every tensor of the model, in the order of the forward pass.
  std::vector<TensorSpec> (*tensors)(const ModelConfig& config);
};

std::span<const Architecture* const> Architectures();
// nullptr: unknown.
const Architecture* FindArchitecture(std::string_view name);

// Tensors of `config` by its architecture's row. REQUIRES: a parsed configuration.
std::vector<TensorSpec> ExpectedTensors(const ModelConfig& config);
// The tensors of a Llama-like decoder with config's features (qkv_bias, qk_norm, tied_embeddings).
std::vector<TensorSpec> DecoderTensors(const ModelConfig& config);

// Rows of each of `tp` ranks: rank r has [r * that, (r + 1) * that), cut at `rows`. Only a
// vocabulary's are cut; the last rank computes as many logits as the others, and what lies behind
// the vocabulary is never read.
constexpr int64_t RowsOfRank(int64_t rows, int32_t tp) { return (rows + tp - 1) / tp; }

// All of the tensor.
TensorSlice WholeOf(const TensorSpec& spec);
// What rank `rank` of `tp` holds. REQUIRES: CheckTensorParallel(config, tp) is OK; 0 <= rank < tp.
TensorSlice SliceOf(const TensorSpec& spec, const ModelConfig& config, int32_t tp, int32_t rank);

}  // namespace fathom::worker
