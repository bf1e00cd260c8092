#include "modeling/checkpoint/checkpoint_check.h"

#include "common/json.h"
#include "common/status.h"

namespace fathom::worker {
namespace {

constexpr JsonLimits kIndexLimits = {
    .bytes_max = 64 << 20, .depth_max = 4, .values_max = 1'000'000};
constexpr std::string_view kEmbedding = "model.embed_tokens.weight";
constexpr std::string_view kHead = "lm_head.weight";

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

// Every tensor of the files by name, each once and where the index says.
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

// What would make a shape fit, where one key of config.json explains the difference.
std::string WayOut(const TensorSpec& spec, const std::vector<int64_t>& found,
                   const ModelConfig& config) {
  std::string other = "the weights are of another model than config.json";
  if (found.size() != spec.shape.size()) return other;
  const bool same_rows = found[0] == spec.shape[0];
  const bool same_cols = found.size() < 2 || found[1] == spec.shape[1];
  const auto set = [](std::string_view key, int64_t value) {
    return fmt::format("set {}={} in config.json if the weights are right", key, value);
  };
  const std::string_view name = spec.name;
  if (name == kEmbedding || name == kHead) {
    if (same_cols) return set("vocab_size", found[0]);
    return same_rows ? set("hidden_size", found[1]) : other;
  }
  if (EndsWith(name, "gate_proj.weight") || EndsWith(name, "up_proj.weight")) {
    return same_cols ? set("intermediate_size", found[0]) : other;
  }
  if (EndsWith(name, "down_proj.weight")) {
    return same_rows ? set("intermediate_size", found[1]) : other;
  }
  if (EndsWith(name, "k_proj.weight") || EndsWith(name, "v_proj.weight")) {
    const int64_t heads = found[0] / config.head_dim;
    if (!same_cols || heads == 0 || found[0] % config.head_dim != 0 || config.heads % heads != 0) {
      return other;
    }
    return fmt::format("this file has {} kv heads ({}): {}", heads,
                       heads == config.heads ? "MHA" : "GQA", set("num_key_value_heads", heads));
  }
  if (EndsWith(name, "q_proj.weight") && same_cols && found[0] % config.heads == 0) {
    return set("head_dim", found[0] / config.heads);
  }
  return other;
}

// The keys of config.json that a tensor's shape comes from.
std::string Because(const TensorSpec& spec, const ModelConfig& config) {
  const std::string_view name = spec.name;
  if (name == kEmbedding || name == kHead) {
    return fmt::format("vocab_size {}, hidden_size {}", config.vocab, config.hidden);
  }
  if (name.find("mlp.") != std::string_view::npos) {
    return fmt::format("intermediate_size {}, hidden_size {}", config.ffn, config.hidden);
  }
  if (name.find("k_proj") != std::string_view::npos ||
      name.find("v_proj") != std::string_view::npos) {
    return fmt::format("num_key_value_heads {}, head_dim {}, hidden_size {}", config.kv_heads,
                       config.head_dim, config.hidden);
  }
  if (name.find("self_attn.") != std::string_view::npos) {
    return fmt::format("num_attention_heads {}, head_dim {}, hidden_size {}", config.heads,
                       config.head_dim, config.hidden);
  }
  return fmt::format("hidden_size {}", config.hidden);
}

// What stands before the names of all tensors beside what config.json's architecture calls them:
// "module." of a training wrapper, "language_model." of a larger model; or, as `lacks`, what is
// missing there ("model.", in a checkpoint of the model without its head).
struct NamePrefix {
  std::string surplus;
  std::string lacks;
};
std::optional<NamePrefix> PrefixOf(const std::vector<ShardHeader>& shards) {
  constexpr std::string_view kBare = "embed_tokens.weight";
  for (const ShardHeader& shard : shards) {
    for (const SafetensorsTensor& tensor : shard.tensors) {
      const std::string_view name = tensor.name;
      if (name == kEmbedding) return std::nullopt;
      if (EndsWith(name, kEmbedding)) {
        return NamePrefix{std::string(name.substr(0, name.size() - kEmbedding.size())), ""};
      }
      if (name == kBare) return NamePrefix{"", "model."};
    }
  }
  return std::nullopt;
}

absl::Status Missing(const TensorSpec& spec, const ModelConfig& config,
                     const std::vector<ShardHeader>& shards) {
  if (const auto prefix = PrefixOf(shards)) {
    const bool surplus = !prefix->surplus.empty();
    return Invalid(
        "{}: the names of all tensors {} \"{}\": the embedding is \"{}{}\", expected was \"{}\"; "
        "{}",
        shards[0].file, surplus ? "begin with" : "lack", surplus ? prefix->surplus : prefix->lacks,
        prefix->surplus, surplus ? kEmbedding : kEmbedding.substr(prefix->lacks.size()), kEmbedding,
        surplus ? "save the inner model instead (model.module or model.language_model, "
                  ".save_pretrained), or rename the tensors"
                : "save the whole model with its head (AutoModelForCausalLM, .save_pretrained)");
  }
  const std::string where =
      shards.size() == 1 ? shards[0].file : fmt::format("{} files", shards.size());
  std::string way_out = fmt::format("the checkpoint is incomplete or not a {} with {} layers",
                                    config.architecture, config.layers);
  if (spec.name == kHead) way_out += "; if it has no head of its own, set tie_word_embeddings=true";
  return Invalid("{}: tensor {} {} is missing; {}", where, spec.name, ShapeText(spec.shape),
                 way_out);
}

// Fills in the type of `place`.
absl::Status CheckOne(const TensorSpec& spec, const std::string& file, const ModelConfig& config,
                      TensorPlace& place) {
  const SafetensorsTensor& tensor = *place.tensor;
  if (tensor.shape != spec.shape) {
    return Invalid("{}: tensor {} is {} {}, config.json ({}) says {}; {}", file, spec.name,
                   tensor.dtype, ShapeText(tensor.shape), Because(spec, config),
                   ShapeText(spec.shape), WayOut(spec, tensor.shape, config));
  }
  const auto type = ParseStoredType(tensor.dtype);
  if (!type) {
    return Invalid(
        "{}: tensor {} is {}; supported are BF16, F16 and F32: use the model's bf16, "
        "fp16 or fp32 weights",
        file, spec.name, tensor.dtype);
  }
  place.type = *type;
  return absl::OkStatus();
}

bool IsMatrix(const TensorPlace& place) { return place.tensor->shape.size() > 1; }

// One type for all matrices: config.json's if any of them has it, else the first one's. Vectors are
// widened to fp32 whatever their type is.
absl::StatusOr<StoredType> CommonType(const Places& places, const ModelConfig& config,
                                      const std::vector<ShardHeader>& shards) {
  std::optional<StoredType> common;
  for (const auto& [name, place] : places) {
    if (!IsMatrix(place)) continue;
    if (!common || place.type == config.stored_type) common = place.type;
  }
  for (const auto& [name, place] : places) {
    if (IsMatrix(place) && place.type != *common) {
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

// Whether nobody needs the tensor: tables of the rotary embedding that old checkpoints carry.
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

absl::StatusOr<CheckedTensors> CheckTensors(const ModelConfig& config,
                                            const std::vector<ShardHeader>& shards,
                                            const WeightMap* index) {
  FATHOM_ASSIGN_OR_RETURN(Places found, CollectTensors(shards, index));
  CheckedTensors checked;
  for (const TensorSpec& spec : ExpectedTensors(config)) {
    auto node = found.extract(spec.name);
    if (node.empty()) return Missing(spec, config, shards);
    TensorPlace& place = node.mapped();
    FATHOM_RETURN_IF_ERROR(CheckOne(spec, shards[place.shard].file, config, place));
    checked.places.insert(std::move(node));
  }
  FATHOM_ASSIGN_OR_RETURN(checked.type, CommonType(checked.places, config, shards));
  for (const auto& [name, place] : found) {
    if (IsLeftover(name)) continue;
    const SafetensorsTensor& embedding = *checked.places.find(kEmbedding)->second.tensor;
    if (config.tied_embeddings && name == kHead && place.tensor->shape == embedding.shape &&
        place.tensor->dtype == embedding.dtype) {
      checked.spare_head = place;
      continue;
    }
    return Invalid(
        "{}: tensor {} {} is unexpected: a {} with {} layers has none of this name; "
        "config.json is of another model (architectures, num_hidden_layers, "
        "tie_word_embeddings)",
        shards[place.shard].file, name, ShapeText(place.tensor->shape), config.architecture,
        config.layers);
  }
  return checked;
}

}  // namespace fathom::worker
