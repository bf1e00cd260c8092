// modeling/config/model_config.h: the checked content of a model folder's config.json. Pure: text
// in, values or a Status out; ReadConfigText and ReadModelConfig also read files. Any thread.
//
// These are refused by name (INVALID_ARGUMENT; NOT_FOUND for a missing file; main exits with 66):
// architectures without a row in modeling/architectures/architecture.h, values outside the limits,
// duplicate keys, and every key that neither this parser nor the list of harmless keys knows,
// because such a key may change the result. The older form of a configuration (rope_scaling,
// torch_dtype) and the newer one (rope_parameters, dtype) give the same ModelConfig.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "common/types.h"
#include "modeling/spec/rope_config.h"

namespace fathom {

// The element type of weights as a checkpoint stores it.
enum class StoredType { kBf16, kF16, kF32 };
inline constexpr int64_t BytesOf(StoredType type) { return type == StoredType::kF32 ? 4 : 2; }
// The name in safetensors: "BF16", "F16", "F32".
const char* StoredTypeName(StoredType type);

// The largest context of a model in tokens. It is far above every published model, and so small
// that no product of sizes overflows int64.
inline constexpr int32_t kContextMax = 1 << 24;

// The text that a configuration was parsed from, overrides included. Digests are made from it;
// comparisons of configurations ignore it.
struct ConfigSource {
  std::string text;
  bool operator==(const ConfigSource&) const { return true; }
};

// Invariants of a parsed configuration: all counts > 0; heads % kv_heads == 0; head_dim is even;
// end and bos ids < vocab; every product of two sizes fits int64.
struct ModelConfig {
  std::string architecture;  // As in config.json, e.g. "LlamaForCausalLM".
  int32_t layers = 0;
  int32_t hidden = 0;
  int32_t heads = 0;
  int32_t kv_heads = 0;
  int32_t head_dim = 0;
  int32_t ffn = 0;
  int32_t vocab = 0;
  int32_t context = 0;  // Tokens (max_position_embeddings).
  double rms_eps = 0;
  RopeConfig rope;
  bool qkv_bias = false;                  // q, k and v have a bias (Qwen2).
  bool qk_norm = false;                   // RMSNorm over head_dim of q and k before rotary (Qwen3).
  bool tied_embeddings = false;           // The LM head uses the embedding matrix.
  std::optional<StoredType> stored_type;  // From config.json; the checkpoint's own type decides.
  std::optional<TokenId> bos_id;
  // eos_token_id of config.json; ids of generation_config.json replace them (generation_config.h).
  std::vector<TokenId> end_ids;
  ConfigSource source;
  bool operator==(const ModelConfig&) const = default;
};

absl::StatusOr<ModelConfig> ParseModelConfig(std::string_view json);

// The path of a model's config.json. `model` is a model folder, or such a file itself
// (models/shapes/*.json).
std::filesystem::path ConfigPath(const std::filesystem::path& model);
// The text of a configuration file, at most 1 MiB. Messages begin with the file's path.
absl::StatusOr<std::string> ReadConfigText(const std::filesystem::path& path);
// Reads ConfigPath(model). Messages begin with the name of the file. `overrides` is a JSON object
// that changes the configuration before it is parsed, as a merge patch (RFC 7396): a value replaces
// the value of a key, null removes the key, and an object inside changes the keys that it names;
// empty: nothing is changed. Router and workers must be given the same overrides; otherwise their
// digests differ and the router never becomes ready.
absl::StatusOr<ModelConfig> ReadModelConfig(const std::filesystem::path& model,
                                            std::string_view overrides = {});

}  // namespace fathom
