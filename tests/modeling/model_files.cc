#include "tests/modeling/model_files.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <random>

#include "common/status.h"
#include "modeling/architectures/architecture.h"
#include "modeling/checkpoint/safetensors.h"
#include "modeling/spec/rank_model.h"

namespace fathom::testing {
namespace {

constexpr std::string_view kSmallConfig = R"({
  "architectures": ["LlamaForCausalLM"], "model_type": "llama", "num_hidden_layers": 2,
  "hidden_size": 8, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 4,
  "intermediate_size": 12, "vocab_size": 16, "max_position_embeddings": 64,
  "rms_norm_eps": 1e-06, "hidden_act": "silu", "tie_word_embeddings": false,
  "torch_dtype": "float32", "bos_token_id": 0, "eos_token_id": 1})";

constexpr std::string_view kSmallArceeConfig = R"({
  "architectures": ["ArceeForCausalLM"], "model_type": "arcee", "num_hidden_layers": 2,
  "hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2,
  "intermediate_size": 48, "vocab_size": 40, "max_position_embeddings": 64,
  "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "rope_scaling": null, "hidden_act": "relu2",
  "attention_bias": false, "mlp_bias": false, "attention_dropout": 0.0, "initializer_range": 0.02,
  "tie_word_embeddings": false, "torch_dtype": "float32", "bos_token_id": 0, "eos_token_id": 1})";

uint16_t Bf16Of(float value) {
  uint32_t bits = 0;
  std::memcpy(&bits, &value, sizeof(bits));
  return static_cast<uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

uint16_t F16Of(float value) {
  const _Float16 half = static_cast<_Float16>(value);
  uint16_t bits = 0;
  std::memcpy(&bits, &half, sizeof(bits));
  return bits;
}

std::string TypeKey(StoredType type) {
  return type == StoredType::kBf16  ? "\"bfloat16\""
         : type == StoredType::kF16 ? "\"float16\""
                                    : "\"float32\"";
}

}  // namespace

StoredTensor& ModelFiles::Tensor(std::string_view name) {
  for (StoredTensor& tensor : tensors) {
    if (tensor.name == name) return tensor;
  }
  ADD_FAILURE() << "no tensor " << name;
  return tensors.front();
}

void ModelFiles::Remove(std::string_view name) {
  std::erase_if(tensors, [&](const StoredTensor& tensor) { return tensor.name == name; });
}

TempFolder::TempFolder() {
  std::string name = (std::filesystem::temp_directory_path() / "fathom-test-XXXXXX").string();
  EXPECT_NE(mkdtemp(name.data()), nullptr);
  path_ = name;
}

TempFolder::~TempFolder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

std::filesystem::path SourcePath(std::string_view path) {
  // A test may run on another machine than the build; then tests/gpu/run gives the path of the
  // tree.
  const char* const tree = std::getenv("FATHOM_SOURCE_DIR");
  const bool given = tree != nullptr && *tree != '\0';
  return std::filesystem::path(given ? tree : FATHOM_SOURCE_DIR) / path;
}

std::filesystem::path BundledModel(std::string_view name) { return SourcePath("models") / name; }

std::string TinyConfig() { return ReadFile(BundledModel("fathom-tiny") / "config.json"); }

ModelConfig ParsedConfig(std::string_view json) {
  const auto config = ParseModelConfig(json);
  EXPECT_TRUE(config.ok()) << ToString(config.status()) << json;
  return config.ok() ? *config : ModelConfig{};
}

std::string ConfigRefusal(std::string_view json) {
  const auto config = ParseModelConfig(json);
  EXPECT_FALSE(config.ok()) << json;
  if (config.ok()) return "";
  EXPECT_EQ(config.status().code(), absl::StatusCode::kInvalidArgument);
  return std::string(Message(config.status()));
}

absl::StatusOr<std::unique_ptr<Checkpoint>> OpenFolder(const std::filesystem::path& folder) {
  FATHOM_ASSIGN_OR_RETURN(const ModelConfig config, ReadModelConfig(folder));
  return OpenCheckpoint(folder, config);
}

std::string FolderRefusal(const std::filesystem::path& folder) {
  const auto checkpoint = OpenFolder(folder);
  EXPECT_FALSE(checkpoint.ok());
  return checkpoint.ok() ? "" : std::string(Message(checkpoint.status()));
}

std::string ReadFile(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  EXPECT_TRUE(file.good()) << path;
  return {std::istreambuf_iterator<char>(file), {}};
}

void WriteFile(const std::filesystem::path& path, std::string_view bytes) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  file.close();
  EXPECT_TRUE(file.good()) << path;
}

ModelFiles RandomModel(std::string_view config_text, uint64_t seed) {
  ModelFiles model{.config = std::string(config_text), .generation = "", .tensors = {}};
  const auto config = ParseModelConfig(config_text);
  EXPECT_TRUE(config.ok()) << ToString(config.status());
  if (!config.ok()) return model;
  std::mt19937_64 rng(seed);
  std::normal_distribution<float> normal(0.0f, 0.1f);
  for (const Parameter& spec : ExpectedTensors(SpecOf(*config))) {
    const TensorSlice whole = WholeOf(spec);
    std::vector<float> values(static_cast<size_t>(whole.rows() * whole.cols()));
    for (float& value : values) value = normal(rng);
    model.tensors.push_back({spec.name, "F32", spec.shape, FromFloats(StoredType::kF32, values)});
  }
  return model;
}

ModelFiles SmallModel(uint64_t seed) { return RandomModel(kSmallConfig, seed); }
ModelFiles SmallArcee(uint64_t seed) { return RandomModel(kSmallArceeConfig, seed); }

ModelFiles ReadModel(const std::filesystem::path& folder) {
  ModelFiles model;
  model.config = ReadFile(folder / "config.json");
  if (std::filesystem::exists(folder / "generation_config.json")) {
    model.generation = ReadFile(folder / "generation_config.json");
  }
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().extension() != ".safetensors") continue;
    const std::string file = ReadFile(entry.path());
    const auto header_bytes = SafetensorsHeaderBytes(file.substr(0, 8), file.size());
    EXPECT_TRUE(header_bytes.ok()) << ToString(header_bytes.status());
    auto tensors = ParseSafetensorsHeader(file.substr(8, *header_bytes), file.size());
    EXPECT_TRUE(tensors.ok()) << ToString(tensors.status());
    for (const SafetensorsTensor& tensor : *tensors) {
      model.tensors.push_back({tensor.name, tensor.dtype, tensor.shape,
                               file.substr(tensor.begin, tensor.end - tensor.begin)});
    }
  }
  return model;
}

std::string Safetensors(const std::vector<StoredTensor>& tensors) {
  nlohmann::ordered_json header;
  header["__metadata__"]["format"] = "pt";
  size_t offset = 0;
  for (const StoredTensor& tensor : tensors) {
    header[tensor.name] = {{"dtype", tensor.dtype},
                           {"shape", tensor.shape},
                           {"data_offsets", {offset, offset + tensor.bytes.size()}}};
    offset += tensor.bytes.size();
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  std::string file;
  for (int i = 0; i < 8; ++i) file += static_cast<char>(text.size() >> (8 * i));
  file += text;
  for (const StoredTensor& tensor : tensors) file += tensor.bytes;
  return file;
}

void WriteModel(const std::filesystem::path& folder, const ModelFiles& model, int files) {
  WriteFile(folder / "config.json", model.config);
  if (!model.generation.empty()) WriteFile(folder / "generation_config.json", model.generation);
  if (files == 1) {
    WriteFile(folder / "model.safetensors", Safetensors(model.tensors));
    return;
  }
  nlohmann::ordered_json index;
  index["metadata"]["total_size"] = 0;
  std::vector<std::vector<StoredTensor>> shards(static_cast<size_t>(files));
  for (size_t i = 0; i < model.tensors.size(); ++i) {
    const size_t shard = i * shards.size() / model.tensors.size();
    shards[shard].push_back(model.tensors[i]);
    index["weight_map"][model.tensors[i].name] =
        fmt::format("model-{:05}-of-{:05}.safetensors", shard + 1, files);
  }
  for (size_t i = 0; i < shards.size(); ++i) {
    WriteFile(folder / fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, files),
              Safetensors(shards[i]));
  }
  WriteFile(folder / "model.safetensors.index.json", index.dump(1));
}

std::string WithKey(std::string_view json, std::string_view key, std::string_view value) {
  nlohmann::ordered_json object = nlohmann::ordered_json::parse(json);
  if (value.empty()) {
    object.erase(std::string(key));
  } else {
    object[std::string(key)] = nlohmann::ordered_json::parse(value);
  }
  return object.dump(1);
}

void Retype(ModelFiles& model, StoredType type) {
  for (StoredTensor& tensor : model.tensors) {
    tensor.bytes = FromFloats(type, ToFloats(tensor.dtype, tensor.bytes));
    tensor.dtype = StoredTypeName(type);
  }
  model.config = WithKey(model.config, "torch_dtype", TypeKey(type));
}

void Tie(ModelFiles& model) {
  model.Remove("lm_head.weight");
  model.config = WithKey(model.config, "tie_word_embeddings", "true");
}

std::vector<float> ToFloats(std::string_view dtype, std::string_view bytes) {
  std::vector<float> values;
  if (dtype == "F32") {
    values.resize(bytes.size() / 4);
    std::memcpy(values.data(), bytes.data(), bytes.size());
    return values;
  }
  for (size_t at = 0; at < bytes.size(); at += 2) {
    uint16_t half = 0;
    std::memcpy(&half, bytes.data() + at, 2);
    if (dtype == "BF16") {
      const uint32_t bits = uint32_t{half} << 16;
      std::memcpy(&values.emplace_back(), &bits, 4);
    } else {
      _Float16 value = 0;
      std::memcpy(&value, &half, 2);
      values.push_back(static_cast<float>(value));
    }
  }
  return values;
}

std::string FromFloats(StoredType type, const std::vector<float>& values) {
  std::string bytes(values.size() * static_cast<size_t>(BytesOf(type)), '\0');
  for (size_t i = 0; i < values.size(); ++i) {
    if (type == StoredType::kF32) {
      std::memcpy(bytes.data() + 4 * i, &values[i], 4);
    } else {
      const uint16_t half = type == StoredType::kBf16 ? Bf16Of(values[i]) : F16Of(values[i]);
      std::memcpy(bytes.data() + 2 * i, &half, 2);
    }
  }
  return bytes;
}

}  // namespace fathom::testing
