// modeling/architectures/architecture.h: the table of architectures, and what each makes of a
// configuration: its features and the model as data. To add one: modeling/architectures/<name>.cc,
// one row in modeling/architectures/architecture.cc, one CMake line, its test (docs/STYLE.md,
// "Adding things"). A table, not registrars: a static library drops unreferenced object files.
// Pure; any thread.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "modeling/config/model_config.h"
#include "modeling/spec/model_spec.h"

namespace fathom::worker {

class ConfigFields;

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
  // The model: layers, their sizes and every tensor.
  ModelSpec (*spec)(const ModelConfig& config);
};

std::span<const Architecture* const> Architectures();
// nullptr: unknown.
const Architecture* FindArchitecture(std::string_view name);

// The model of `config` by its architecture's row. REQUIRES: a parsed configuration.
ModelSpec SpecOf(const ModelConfig& config);
// A Llama-like decoder of equal layers with config's features (qkv_bias, qk_norm,
// tied_embeddings).
ModelSpec DecoderSpec(const ModelConfig& config);

}  // namespace fathom::worker
