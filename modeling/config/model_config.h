// modeling/config/model_config.h: what a model folder's config.json says, checked. Pure: text in,
// values or a Status out; Read...() beside them read the files. Any thread.
//
// Refused by name (INVALID_ARGUMENT, NOT_FOUND for a missing file; main exits 66): architectures
// without a row in modeling/architectures/architecture.h, values outside the limits, duplicate
// keys, and every key that neither this parser nor the list of harmless keys knows, for a key
// nobody reads may change the result. The older form (rope_scaling, torch_dtype) and the newer one
// (rope_parameters, dtype) of a configuration give the same ModelConfig.
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

namespace fathom::worker {

// Element type of weights as stored in a checkpoint.
enum class StoredType { kBf16, kF16, kF32 };
inline constexpr int64_t BytesOf(StoredType type) { return type == StoredType::kF32 ? 4 : 2; }
// As safetensors spells it: "BF16", "F16", "F32".
const char* StoredTypeName(StoredType type);

// Of any model, in tokens: far above every published one, and small enough that no product of sizes
// overflows int64.
inline constexpr int32_t kContextMax = 1 << 24;

// The text that a configuration was parsed from, overrides included: what digests are made of.
// Configurations are compared without it.
struct ConfigSource {
  std::string text;
  bool operator==(const ConfigSource&) const { return true; }
};

// Invariants of a parsed one: all counts > 0; heads % kv_heads == 0; head_dim even; end and bos ids
// < vocab; every product of two sizes fits int64.
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
  bool qkv_bias = false;                  // A bias after the q, k and v products (Qwen2).
  bool qk_norm = false;                   // RMSNorm over head_dim of q and k before rotary (Qwen3).
  bool tied_embeddings = false;           // The head's product uses the embedding matrix.
  std::optional<StoredType> stored_type;  // As config.json says; the checkpoint's own type decides.
  std::optional<TokenId> bos_id;
  std::vector<TokenId> end_ids;  // eos_token_id of config.json; generation_config.json's go before
                                 // (generation_config.h).
  ConfigSource source;
  bool operator==(const ModelConfig&) const = default;
};

absl::StatusOr<ModelConfig> ParseModelConfig(std::string_view json);

// Where a model's config.json is: `model` is a model folder, or such a file itself
// (models/shapes/*.json).
std::filesystem::path ConfigPath(const std::filesystem::path& model);
// The text of a configuration file, at most 1 MiB. Messages begin with the file's path.
absl::StatusOr<std::string> ReadConfigText(const std::filesystem::path& path);
// ConfigPath(model). Messages begin with the file's name.
// `overrides` is a JSON object that changes the configuration before anybody reads it, as a merge
// patch (RFC 7396): a value replaces a key's, null takes the key away, an object inside changes the
// keys that it names; empty: nothing is changed. Router and workers are given the same.
absl::StatusOr<ModelConfig> ReadModelConfig(const std::filesystem::path& model,
                                            std::string_view overrides = {});

}  // namespace fathom::worker
