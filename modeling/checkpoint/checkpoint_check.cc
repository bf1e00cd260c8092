#include "modeling/checkpoint/checkpoint_check.h"

#include <algorithm>

#include "common/json.h"
#include "common/status.h"

namespace fathom {
namespace {

constexpr JsonLimits kIndexLimits = {
    .bytes_max = 64 << 20, .depth_max = 4, .values_max = 1'000'000};

using Places = std::map<std::string, TensorPlace, std::less<>>;

bool EndsWith(std::string_view text, std::string_view end) {
  return text.size() >= end.size() && text.substr(text.size() - end.size()) == end;
}

bool IsPlainName(std::string_view name) {
  return name.find_first_of(std::string_view("/\\\0", 3)) == std::string_view::npos &&
         name.front() != '.' && EndsWith(name, ".safetensors");
}

std::optional<StoredType> ParseStoredType(std::string_view dtype) {
  for (const StoredType type : {StoredType::kBf16, StoredType::kF16, StoredType::kF32}) {
    if (dtype == StoredTypeName(type)) return type;
  }
  return std::nullopt;
}

// Collects every tensor of the files by name, and checks that each is there once and in the file
// that the index names.
absl::StatusOr<Places> CollectTensors(const std::vector<ShardHeader>& shards,
                                      const WeightMap* index) {
  Places found;
  for (size_t i = 0; i < shards.size(); ++i) {
    for (const SafetensorsTensor& tensor : shards[i].tensors) {
      const auto [place, is_new] =
          found.try_emplace(tensor.name, TensorPlace{.shard = i, .tensor = &tensor});
      if (!is_new) {
        return Invalid("{}: tensor {} is in {} too; keep one of them", shards[i].file, tensor.name,
                       shards[place->second.shard].file);
      }
      if (index == nullptr) continue;
      const auto entry = index->find(tensor.name);
      if (entry == index->end()) {
        return Invalid("{}: tensor {} is not listed in {}; these files are not of one checkpoint",
                       shards[i].file, tensor.name, kIndexFile);
      }
      if (entry->second != shards[i].file) {
        return Invalid("{}: tensor {} should be in {} by {}; these files are not of one checkpoint",
                       shards[i].file, tensor.name, entry->second, kIndexFile);
      }
    }
  }
  if (index == nullptr) return found;
  for (const auto& [name, file] : *index) {
    if (!found.contains(name)) {
      return Invalid("{}: tensor {} is missing, {} lists it there; copy the file again", file, name,
                     kIndexFile);
    }
  }
  return found;
}

// The layer that has `tensor`; nullptr for a tensor that is in no layer.
const LayerSpec* LayerOf(const ModelSpec& spec, const Parameter& tensor) {
  const auto has = [&](const LayerSpec& layer) {
    return std::find(layer.parameters.begin(), layer.parameters.end(), tensor) !=
           layer.parameters.end();
  };
  for (const auto* layers : {&spec.layers, &spec.draft_layers}) {
    const auto found = std::find_if(layers->begin(), layers->end(), has);
    if (found != layers->end()) return &*found;
  }
  return nullptr;
}

std::string SetKey(std::string_view key, int64_t value) {
  return fmt::format("set {}={} in config.json if the weights are right", key, value);
}

// The way out if one key of config.json explains the difference between the shapes.
std::string WayOut(const Parameter& tensor, const std::vector<int64_t>& found,
                   const ModelSpec& spec) {
  std::string other = "the weights are of another model than config.json";
  if (found.size() != tensor.shape.size()) return other;
  const bool same_rows = found[0] == tensor.shape[0];
  const bool same_cols = found.size() < 2 || found[1] == tensor.shape[1];
  const LayerSpec* layer = LayerOf(spec, tensor);
  switch (tensor.role) {
    case ParameterRole::kEmbedding:
    case ParameterRole::kLmHead:
      if (same_cols) return SetKey("vocab_size", found[0]);
      return same_rows ? SetKey("hidden_size", found[1]) : other;
    case ParameterRole::kGate:
    case ParameterRole::kUp:
      return same_cols ? SetKey("intermediate_size", found[0]) : other;
    case ParameterRole::kDown:
      return same_rows ? SetKey("intermediate_size", found[1]) : other;
    case ParameterRole::kK:
    case ParameterRole::kV: {
      const int32_t all_heads = layer->attention.heads, head_dim = layer->attention.head_dim;
      const int64_t heads = found[0] / head_dim;
      if (!same_cols || heads == 0 || found[0] % head_dim != 0 || all_heads % heads != 0) {
        return other;
      }
      return fmt::format("this file has {} kv heads ({}): {}", heads,
                         heads == all_heads ? "MHA" : "GQA", SetKey("num_key_value_heads", heads));
    }
    case ParameterRole::kQ:
      if (!same_cols || found[0] % layer->attention.heads != 0) return other;
      return SetKey("head_dim", found[0] / layer->attention.heads);
    default:
      return other;
  }
}

// The keys of config.json that a tensor's shape comes from.
std::string Because(const Parameter& tensor, const ModelSpec& spec) {
  const LayerSpec* layer = LayerOf(spec, tensor);
  switch (tensor.role) {
    case ParameterRole::kEmbedding:
    case ParameterRole::kLmHead:
      return fmt::format("vocab_size {}, hidden_size {}", spec.vocab, spec.hidden);
    case ParameterRole::kGate:
    case ParameterRole::kUp:
    case ParameterRole::kDown:
      return fmt::format("intermediate_size {}, hidden_size {}", layer->mlp.width, spec.hidden);
    case ParameterRole::kK:
    case ParameterRole::kV:
    case ParameterRole::kKBias:
    case ParameterRole::kVBias:
      return fmt::format("num_key_value_heads {}, head_dim {}, hidden_size {}",
                         layer->attention.kv_heads, layer->attention.head_dim, spec.hidden);
    case ParameterRole::kQ:
    case ParameterRole::kQBias:
    case ParameterRole::kQNorm:
    case ParameterRole::kKNorm:
    case ParameterRole::kO:
      return fmt::format("num_attention_heads {}, head_dim {}, hidden_size {}",
                         layer->attention.heads, layer->attention.head_dim, spec.hidden);
    case ParameterRole::kAttentionNorm:
    case ParameterRole::kFfnNorm:
    case ParameterRole::kFinalNorm:
      break;
  }
  return fmt::format("hidden_size {}", spec.hidden);
}

// How the names of all tensors in the files differ from the expected ones. `surplus`: a prefix
// before all of them ("module." of a training wrapper, "language_model." of a larger model).
// `lacks`: a prefix that is missing ("model.", in a checkpoint of the model without its LM head).
struct NamePrefix {
  std::string surplus;
  std::string lacks;
};
std::optional<NamePrefix> PrefixOf(std::string_view embedding,
                                   const std::vector<ShardHeader>& shards) {
  const std::string_view first = embedding.substr(0, embedding.find('.') + 1);
  for (const ShardHeader& shard : shards) {
    for (const SafetensorsTensor& tensor : shard.tensors) {
      const std::string_view name = tensor.name;
      if (name == embedding) return std::nullopt;
      if (EndsWith(name, embedding)) {
        return NamePrefix{std::string(name.substr(0, name.size() - embedding.size())), ""};
      }
      if (name == embedding.substr(first.size())) return NamePrefix{"", std::string(first)};
    }
  }
  return std::nullopt;
}

absl::Status Missing(const Parameter& tensor, const ModelSpec& spec,
                     const std::vector<ShardHeader>& shards) {
  const std::string_view embedding = spec.embedding.name;
  if (const auto prefix = PrefixOf(embedding, shards)) {
    const bool surplus = !prefix->surplus.empty();
    return Invalid(
        "{}: the names of all tensors {} \"{}\": the embedding is \"{}{}\", expected was \"{}\"; "
        "{}",
        shards[0].file, surplus ? "begin with" : "lack", surplus ? prefix->surplus : prefix->lacks,
        prefix->surplus, surplus ? embedding : embedding.substr(prefix->lacks.size()), embedding,
        surplus ? "save the inner model instead (model.module or model.language_model, "
                  ".save_pretrained), or rename the tensors"
                : "save the whole model with its head (AutoModelForCausalLM, .save_pretrained)");
  }
  const std::string where =
      shards.size() == 1 ? shards[0].file : fmt::format("{} files", shards.size());
  std::string way_out = fmt::format("the checkpoint is incomplete or not a {} with {} layers",
                                    spec.architecture, spec.layers.size());
  if (tensor.role == ParameterRole::kLmHead) {
    way_out += "; if it has no head of its own, set tie_word_embeddings=true";
  }
  return Invalid("{}: tensor {} {} is missing; {}", where, tensor.name, ShapeText(tensor.shape),
                 way_out);
}

// Checks one tensor and sets type and precision of `place`.
absl::Status CheckOne(const Parameter& expected, const std::string& file, const ModelSpec& spec,
                      TensorPlace& place) {
  const SafetensorsTensor& tensor = *place.tensor;
  if (tensor.shape != expected.shape) {
    return Invalid("{}: tensor {} is {} {}, config.json ({}) says {}; {}", file, expected.name,
                   tensor.dtype, ShapeText(tensor.shape), Because(expected, spec),
                   ShapeText(expected.shape), WayOut(expected, tensor.shape, spec));
  }
  const auto type = ParseStoredType(tensor.dtype);
  if (!type) {
    return Invalid(
        "{}: tensor {} is {}; supported are BF16, F16 and F32: use the model's bf16, "
        "fp16 or fp32 weights",
        file, expected.name, tensor.dtype);
  }
  place.type = *type;
  place.precision = expected.precision;
  return absl::OkStatus();
}

// The one type of all matrices: `config_type` if any matrix has it, else the type of the first one.
// Vectors are not checked, because they are widened to fp32.
absl::StatusOr<StoredType> CommonType(const Places& places, std::optional<StoredType> config_type,
                                      const std::vector<ShardHeader>& shards) {
  std::optional<StoredType> common;
  for (const auto& [name, place] : places) {
    if (place.precision != Precision::kMatrix) continue;
    if (!common || place.type == config_type) common = place.type;
  }
  for (const auto& [name, place] : places) {
    if (place.precision == Precision::kMatrix && place.type != *common) {
      return Invalid(
          "{}: tensor {}, a matrix, is {}, other matrices are {}; store all matrices in one type "
          "(vectors, that is norms and biases, may have another): load the model with "
          "torch_dtype=torch.{} in transformers and save it again",
          shards[place.shard].file, name, place.tensor->dtype, StoredTypeName(*common),
          *common == StoredType::kBf16  ? "bfloat16"
          : *common == StoredType::kF16 ? "float16"
                                        : "float32");
    }
  }
  return *common;
}

// Whether the tensor is not used: a table of the rotary embedding, which old checkpoints contain.
bool IsLeftover(std::string_view name) { return EndsWith(name, ".rotary_emb.inv_freq"); }

}  // namespace

absl::StatusOr<WeightMap> ParseWeightMap(std::string_view json) {
  FATHOM_ASSIGN_OR_RETURN(const JsonValue root, ParseJson(json, kIndexLimits));
  const JsonValue::Object* entries = nullptr;
  if (root.AsObject() != nullptr) {
    for (const auto& [key, value] : *root.AsObject()) {
      if (key == "weight_map") {
        entries = value.AsObject();
      } else if (key != "metadata") {
        return Invalid("the key \"{}\" is not known here; expected weight_map and metadata", key);
      }
    }
  }
  if (entries == nullptr) return Invalid("has no object weight_map (tensor name -> file name)");
  WeightMap map;
  for (const auto& [name, value] : *entries) {
    const std::string* file = value.AsString();
    if (file == nullptr || file->empty() || !IsPlainName(*file)) {
      return Invalid(
          "weight_map puts tensor {} into {}; expected the name of a .safetensors file "
          "in the same folder",
          name, value.Brief());
    }
    map.emplace(name, *file);
  }
  if (map.empty()) return Invalid("weight_map is empty");
  return map;
}

absl::StatusOr<CheckedTensors> CheckTensors(const ModelSpec& spec,
                                            std::optional<StoredType> config_type,
                                            const std::vector<ShardHeader>& shards,
                                            const WeightMap* index) {
  FATHOM_ASSIGN_OR_RETURN(Places found, CollectTensors(shards, index));
  CheckedTensors checked;
  for (const Parameter& expected : ExpectedTensors(spec)) {
    auto node = found.extract(expected.name);
    if (node.empty()) return Missing(expected, spec, shards);
    TensorPlace& place = node.mapped();
    FATHOM_RETURN_IF_ERROR(CheckOne(expected, shards[place.shard].file, spec, place));
    checked.places.insert(std::move(node));
  }
  FATHOM_ASSIGN_OR_RETURN(checked.type, CommonType(checked.places, config_type, shards));
  for (const auto& [name, place] : found) {
    if (IsLeftover(name)) continue;
    const SafetensorsTensor& embedding = *checked.places.find(spec.embedding.name)->second.tensor;
    if (spec.spare_head == name && place.tensor->shape == embedding.shape &&
        place.tensor->dtype == embedding.dtype) {
      checked.spare_head = place;
      continue;
    }
    return Invalid(
        "{}: tensor {} {} is unexpected: a {} with {} layers has none of this name; "
        "config.json is of another model (architectures, num_hidden_layers, "
        "tie_word_embeddings)",
        shards[place.shard].file, name, ShapeText(place.tensor->shape), spec.architecture,
        spec.layers.size());
  }
  return checked;
}

}  // namespace fathom
