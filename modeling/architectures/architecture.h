// modeling/architectures/architecture.h: the table of architectures, and what each one makes of a
// configuration: its features and its ModelSpec. To add one: modeling/architectures/<name>.cc, one
// row in modeling/architectures/architecture.cc, one CMake line, its test (docs/STYLE.md, "Adding
// things"). It is a table and not a list of self-registering objects, because the linker drops
// unreferenced object files of a static library. Pure; any thread.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "modeling/config/model_config.h"
#include "modeling/spec/model_spec.h"

namespace fathom {

class ConfigFields;

// The values that an architecture uses for missing keys (the defaults of its class in
// transformers).
struct ConfigDefaults {
  int32_t context = 0;    // max_position_embeddings
  int32_t kv_heads = 0;   // num_key_value_heads; 0: num_attention_heads, as if the key is null.
  int32_t head_dim = 0;   // 0: hidden_size / num_attention_heads.
  double rms_eps = 1e-6;  // rms_norm_eps
  // hidden_act; a configuration with another one is refused.
  std::string_view activation = "silu";
  // Whether the architecture reads use_sliding_window, sliding_window and max_window_layers.
  bool has_windows = false;
};

struct Architecture {
  std::string_view name;        // In config.json's "architectures".
  std::string_view model_type;  // What config.json's "model_type" must be.
  ConfigDefaults defaults;
  // Reads the keys that only this architecture has and sets the features of `config`. An error is
  // stored in `fields`.
  void (*configure)(ConfigFields& fields, ModelConfig& config);
  // Makes the model: its layers, their sizes and every tensor.
  ModelSpec (*spec)(const ModelConfig& config);
};

std::span<const Architecture* const> Architectures();
// nullptr: no architecture has this name.
const Architecture* FindArchitecture(std::string_view name);

// Makes the model of `config` with the `spec` function of its architecture. REQUIRES: `config` was
// parsed.
ModelSpec SpecOf(const ModelConfig& config);
// A Llama-like decoder of equal layers with the features that `config` has (qkv_bias, qk_norm,
// tied_embeddings).
ModelSpec DecoderSpec(const ModelConfig& config);

}  // namespace fathom
