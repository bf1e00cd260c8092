#include "modeling/config/model_config.h"

#include <algorithm>
#include <fstream>
#include <numeric>

#include "common/check.h"
#include "common/json.h"
#include "common/request_limits.h"
#include "common/status.h"
#include "modeling/architectures/architecture.h"
#include "modeling/config/config_fields.h"
#include "modeling/config/config_keys.h"
#include "modeling/config/config_rope.h"

namespace fathom {
namespace {

// The limits are far above every published model, and so small that no product of sizes overflows
// int64.
constexpr int32_t kLayersMax = 1024;
constexpr int32_t kHiddenMax = 1 << 18;
constexpr int32_t kHeadsMax = 1 << 12;
constexpr int32_t kHeadDimMax = 1 << 10;
constexpr int32_t kFfnMax = 1 << 20;
constexpr int32_t kVocabMax = 1 << 22;

absl::StatusOr<JsonValue> ParseObject(std::string_view text) {
  FATHOM_ASSIGN_OR_RETURN(JsonValue root, ParseJson(text, kConfigLimits));
  if (root.AsObject() == nullptr) {
    return Invalid("is {}; expected a JSON object", root.Brief());
  }
  return root;
}

std::string KnownArchitectures() {
  std::string names;
  for (const Architecture* row : Architectures()) {
    names += (names.empty() ? "" : ", ") + std::string(row->name);
  }
  return names;
}

// Returns nullptr after an error.
const Architecture* ReadArchitecture(ConfigFields& fields) {
  const JsonValue* value = fields.Take("architectures");
  const JsonValue::Array* names = value != nullptr ? value->AsArray() : nullptr;
  const std::string* name =
      names != nullptr && names->size() == 1 ? names->front().AsString() : nullptr;
  if (name == nullptr) {
    fields.Refuse("architectures",
                  fmt::format("is {}; expected a list of one of {}",
                              value != nullptr ? value->Brief() : "missing", KnownArchitectures()));
    return nullptr;
  }
  const Architecture* architecture = FindArchitecture(*name);
  if (architecture == nullptr) {
    fields.Refuse("architectures", fmt::format("names {}, which is not supported; supported are {}",
                                               value->Brief(), KnownArchitectures()));
    return nullptr;
  }
  const std::string type = fields.StringOr("model_type", architecture->model_type);
  if (type != architecture->model_type) {
    fields.Refuse("model_type", fmt::format("is \"{}\"; {} goes with \"{}\"", type, *name,
                                            architecture->model_type));
  }
  return architecture;
}

void ReadSizes(ConfigFields& fields, const ConfigDefaults& defaults, ModelConfig& config) {
  config.layers = fields.Int("num_hidden_layers", 1, kLayersMax);
  config.hidden = fields.Int("hidden_size", 1, kHiddenMax);
  config.heads = fields.Int("num_attention_heads", 1, kHeadsMax);
  const bool has_kv_heads = fields.Has("num_key_value_heads") || defaults.kv_heads == 0;
  config.kv_heads = fields.IntOr("num_key_value_heads",
                                 has_kv_heads ? config.heads : defaults.kv_heads, 1, kHeadsMax);
  config.head_dim = fields.IntOr("head_dim", defaults.head_dim, 2, kHeadDimMax);
  config.ffn = fields.Int("intermediate_size", 1, kFfnMax);
  config.vocab = fields.Int("vocab_size", 1, kVocabMax);
  config.context = fields.IntOr("max_position_embeddings", defaults.context, 2, kContextMax);
  config.rms_eps = fields.RealOr("rms_norm_eps", defaults.rms_eps, 1e-12, 1.0);
  config.tied_embeddings = fields.BoolOr("tie_word_embeddings", false);
  if (config.head_dim == 0) {
    if (config.hidden % config.heads != 0) {
      fields.Refuse("hidden_size", fmt::format("= {} does not divide by num_attention_heads = {}; "
                                               "give head_dim",
                                               config.hidden, config.heads));
    }
    config.head_dim = config.hidden / config.heads;
  }
  if (config.head_dim % 2 != 0 || config.head_dim > kHeadDimMax) {
    fields.Refuse("head_dim", fmt::format("is {}; rotary embedding needs an even one up to {}",
                                          config.head_dim, kHeadDimMax));
  }
  if (config.heads % config.kv_heads != 0) {
    fields.Refuse("num_key_value_heads",
                  fmt::format("= {} does not divide num_attention_heads = {}", config.kv_heads,
                              config.heads));
  }
}

// Parses a type's name as transformers or torch spells it; nullopt: another name.
std::optional<StoredType> StoredTypeOf(std::string_view name) {
  constexpr std::string_view kTorch = "torch.";
  if (name.starts_with(kTorch)) name.remove_prefix(kTorch.size());
  if (name == "bfloat16") return StoredType::kBf16;
  if (name == "float16" || name == "half") return StoredType::kF16;
  if (name == "float32" || name == "float") return StoredType::kF32;
  return std::nullopt;
}

void ReadStoredType(ConfigFields& fields, ModelConfig& config) {
  for (const std::string_view key : {"torch_dtype", "dtype"}) {
    const std::string name = fields.StringOr(key, "");
    if (name.empty()) continue;
    const auto type = StoredTypeOf(name);
    if (!type) {
      fields.Refuse(key,
                    fmt::format("is \"{}\"; supported are bfloat16, float16 and float32", name));
    } else if (config.stored_type && config.stored_type != type) {
      fields.Refuse(key, fmt::format("is \"{}\" and torch_dtype \"{}\"; keep one of them", name,
                                     fields.StringOr("torch_dtype", "")));
    }
    config.stored_type = type;
  }
}

void ReadActivation(ConfigFields& fields, std::string_view supported) {
  std::string activation = fields.StringOr("hidden_act", supported);
  if (activation == "swish") activation = "silu";  // Two names of the same function.
  if (activation != supported) {
    fields.Refuse("hidden_act",
                  fmt::format("is \"{}\"; only \"{}\" is supported", activation, supported));
  }
}

// The layers to which a configuration gives a sliding window: by its layer_types, else by
// max_window_layers. `fields` keeps the first error.
std::vector<bool> WindowedLayers(ConfigFields& fields, const ConfigDefaults& defaults,
                                 const ModelConfig& config) {
  const auto count = static_cast<size_t>(config.layers);
  std::vector<bool> windowed(count, false);
  const JsonValue* first = fields.Take("max_window_layers");
  const JsonValue* types = fields.Take("layer_types");
  if (types == nullptr) {
    const bool used = defaults.has_windows && fields.BoolOr("use_sliding_window", false);
    if (!used) return windowed;
    constexpr int32_t kFirstDefault = 28;
    const int32_t begin = first == nullptr
                              ? kFirstDefault
                              : fields.IntOr("max_window_layers", kFirstDefault, 0, INT32_MAX);
    for (size_t i = 0; i < count; ++i) windowed[i] = static_cast<int64_t>(i) >= begin;
    return windowed;
  }
  const JsonValue::Array* layers = types->AsArray();
  bool known = layers != nullptr && layers->size() == count;
  for (size_t i = 0; known && i < count; ++i) {
    const std::string* type = (*layers)[i].AsString();
    windowed[i] = type != nullptr && *type == "sliding_attention";
    known = windowed[i] || (type != nullptr && *type == "full_attention");
  }
  if (!known) {
    fields.Refuse("layer_types", fmt::format("is {}; expected \"full_attention\" or "
                                             "\"sliding_attention\" for each of the {} layers",
                                             types->Brief(), config.layers));
  }
  return windowed;
}

// A layer with a sliding window attends to that many of the last tokens. A window as long as the
// context changes nothing and is accepted; a shorter one is refused.
void ReadWindows(ConfigFields& fields, const ConfigDefaults& defaults, const ModelConfig& config) {
  constexpr int32_t kWindowDefault = 4096;  // The default of the classes that have windows.
  const std::vector<bool> windowed = WindowedLayers(fields, defaults, config);
  const auto count = std::count(windowed.begin(), windowed.end(), true);
  const bool used = fields.BoolOr("use_sliding_window", !defaults.has_windows);
  const JsonValue* given = fields.Take("sliding_window");
  if (count == 0) return;
  const bool is_null = given == nullptr && fields.Has("sliding_window");
  if (is_null && fields.Take("layer_types") == nullptr) return;
  if (!used || is_null) {
    fields.Refuse("layer_types",
                  "names sliding_attention, but the configuration has no window (sliding_window, "
                  "use_sliding_window); set them alike");
    return;
  }
  const int32_t window = fields.IntOr("sliding_window", kWindowDefault, 1, INT32_MAX);
  if (window >= config.context) return;
  fields.Refuse(
      "sliding_window",
      fmt::format("= {} is shorter than max_position_embeddings = {} in {} of the {} layers, and "
                  "windows are not supported; serve sequences up to the window, which are "
                  "computed alike: --hf-overrides '{{\"max_position_embeddings\": {}}}'",
                  window, config.context, count, config.layers, window));
}

}  // namespace

const char* StoredTypeName(StoredType type) {
  switch (type) {
    case StoredType::kBf16:
      return "BF16";
    case StoredType::kF16:
      return "F16";
    case StoredType::kF32:
      return "F32";
  }
  return "?";
}

absl::StatusOr<ModelConfig> ParseModelConfig(std::string_view json) {
  FATHOM_ASSIGN_OR_RETURN(const JsonValue root, ParseObject(json));
  ConfigFields fields(*root.AsObject());
  ModelConfig config;
  config.source.text = json;
  const Architecture* architecture = ReadArchitecture(fields);
  if (architecture == nullptr) return fields.Finish({});
  // These keys are checked first: with quantized weights or with code in the folder, a message
  // about another key would not help.
  for (const std::string_view key : {"quantization_config", "auto_map"}) {
    if (fields.Take(key) != nullptr) {
      fields.Refuse(key, key == "auto_map" ? "is set: code of a model folder is never run here"
                                           : "is set: quantized weights are not supported; use "
                                             "the model's bf16, fp16 or fp32 weights");
    }
  }
  config.architecture = architecture->name;
  ReadSizes(fields, architecture->defaults, config);
  ReadStoredType(fields, config);
  ReadActivation(fields, architecture->defaults.activation);
  ReadWindows(fields, architecture->defaults, config);
  ReadRope(fields, config.context, config.rope);
  architecture->configure(fields, config);
  const std::vector<TokenId> bos = fields.Ids("bos_token_id", config.vocab);
  if (bos.size() == 1) config.bos_id = bos[0];
  if (bos.size() > 1) fields.Refuse("bos_token_id", "has several ids; expected one");
  config.end_ids = fields.Ids("eos_token_id", config.vocab);
  if (config.end_ids.size() > kEndTokensMax) {
    fields.Refuse("eos_token_id", fmt::format("has {} ids; at most {} are supported",
                                              config.end_ids.size(), kEndTokensMax));
  }
  FATHOM_RETURN_IF_ERROR(fields.Finish(HarmlessConfigKeys()));
  return config;
}

std::filesystem::path ConfigPath(const std::filesystem::path& model) {
  std::error_code error;  // A path that cannot be read is not a folder.
  const bool is_file = model.extension() == ".json" && !std::filesystem::is_directory(model, error);
  return is_file ? model : model / "config.json";
}

absl::StatusOr<std::string> ReadConfigText(const std::filesystem::path& path) {
  std::error_code error;
  if (!std::filesystem::is_regular_file(path, error)) {
    return NotFound("{}: no such file; --model takes a Hugging Face model folder", path.string());
  }
  const uintmax_t bytes = std::filesystem::file_size(path, error);
  if (bytes > kConfigLimits.bytes_max) {
    return Invalid("{}: {} bytes; the limit is {}", path.string(), bytes, kConfigLimits.bytes_max);
  }
  std::ifstream file(path, std::ios::binary);
  std::string text(std::istreambuf_iterator<char>(file), {});
  if (!file) return NotFound("{}: cannot be read; see its permissions", path.string());
  return text;
}

namespace {

absl::StatusOr<std::string> Overridden(const std::string& text, std::string_view overrides,
                                       const std::string& file) {
  const auto patch = ParseJson(overrides, kConfigLimits);
  if (!patch.ok()) return Annotate(patch.status(), "--hf-overrides");
  if (patch->AsObject() == nullptr) {
    return Invalid("--hf-overrides is {}; expected a JSON object, e.g. {{\"rope_theta\": 1000000}}",
                   patch->Brief());
  }
  auto merged = MergePatch(text, overrides, kConfigLimits);
  if (!merged.ok()) return Annotate(merged.status(), file);
  return merged;
}

}  // namespace

absl::StatusOr<ModelConfig> ReadModelConfig(const std::filesystem::path& model,
                                            std::string_view overrides) {
  const std::filesystem::path path = ConfigPath(model);
  FATHOM_ASSIGN_OR_RETURN(std::string text, ReadConfigText(path));
  if (!overrides.empty()) {
    FATHOM_ASSIGN_OR_RETURN(text, Overridden(text, overrides, path.filename().string()));
  }
  auto config = ParseModelConfig(text);
  if (!config.ok()) return Annotate(config.status(), path.filename().string());
  return config;
}

}  // namespace fathom
