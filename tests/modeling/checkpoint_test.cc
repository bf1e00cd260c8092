#include "modeling/checkpoint/checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <fstream>
#include <limits>

#include "common/status.h"
#include "modeling/architectures/architecture.h"
#include "modeling/checkpoint/finite.h"
#include "modeling/spec/rank_model.h"
#include "tests/modeling/model_files.h"

namespace fathom {
namespace {

using ::testing::AllOf;
using testing::BundledModel;
using testing::FolderRefusal;
using testing::FromFloats;
using ::testing::HasSubstr;
using testing::ModelFiles;
using testing::OpenFolder;
using testing::ReadModel;
using testing::SmallModel;
using testing::StoredTensor;
using testing::TempFolder;
using testing::ToFloats;
using testing::WithKey;
using testing::WriteFile;
using testing::WriteModel;

// Writes the model into a new folder, opens it, and returns the error message.
std::string Refusal(const ModelFiles& model, int files = 1) {
  const TempFolder folder;
  WriteModel(folder.path(), model, files);
  return FolderRefusal(folder.path());
}

std::string BytesOfTensor(const HostTensor& tensor) {
  return {reinterpret_cast<const char*>(tensor.data()), static_cast<size_t>(tensor.bytes())};
}

// Loads every expected tensor of the folder completely; returns the first error.
absl::StatusOr<std::map<std::string, std::string>> LoadAll(const std::filesystem::path& folder) {
  FATHOM_ASSIGN_OR_RETURN(const ModelConfig config, ReadModelConfig(folder));
  FATHOM_ASSIGN_OR_RETURN(const auto checkpoint, OpenCheckpoint(folder, config));
  std::map<std::string, std::string> tensors;
  for (const Parameter& spec : ExpectedTensors(SpecOf(config))) {
    FATHOM_ASSIGN_OR_RETURN(const HostTensor tensor, checkpoint->Load(spec.name, WholeOf(spec)));
    tensors[spec.name] = BytesOfTensor(tensor);
  }
  return tensors;
}

TEST(Checkpoint, LoadsWhatTheFilesHold) {
  for (const char* name : {"fathom-tiny", "fathom-tiny-draft"}) {
    const auto loaded = LoadAll(BundledModel(name));
    ASSERT_TRUE(loaded.ok()) << ToString(loaded.status());
    const ModelFiles files = ReadModel(BundledModel(name));
    ASSERT_EQ(loaded->size(), files.tensors.size());
    for (const StoredTensor& tensor : files.tensors) {
      EXPECT_EQ(loaded->at(tensor.name), tensor.bytes) << tensor.name;
    }
  }
}

TEST(Checkpoint, SlicesAreSubmatrices) {
  const std::filesystem::path folder = BundledModel("fathom-tiny");
  const auto config = ReadModelConfig(folder);
  const auto checkpoint = OpenCheckpoint(folder, *config);
  ASSERT_TRUE(checkpoint.ok());
  for (const Parameter& spec : ExpectedTensors(SpecOf(*config))) {
    const auto whole = (*checkpoint)->Load(spec.name, WholeOf(spec));
    ASSERT_TRUE(whole.ok());
    for (int32_t rank = 0; rank < 4; ++rank) {
      const TensorSlice slice = SliceOf(spec, 4, rank);
      const auto part = (*checkpoint)->Load(spec.name, slice);
      ASSERT_TRUE(part.ok());
      ASSERT_EQ(part->rows(), slice.rows());
      ASSERT_EQ(part->cols(), slice.cols());
      EXPECT_EQ(reinterpret_cast<uintptr_t>(part->data()) % 64, 0u);
      for (int64_t row = 0; row < slice.rows(); ++row) {
        const int64_t at = (slice.row_begin + row) * whole->cols() + slice.col_begin;
        ASSERT_EQ(std::memcmp(part->data() + row * slice.cols() * 2, whole->data() + at * 2,
                              static_cast<size_t>(slice.cols() * 2)),
                  0)
            << spec.name << " row " << row;
      }
    }
  }
}

TEST(Checkpoint, ShardsDoNotMatter) {
  const ModelFiles model = SmallModel(1);
  const TempFolder one, three;
  WriteModel(one.path(), model, 1);
  WriteModel(three.path(), model, 3);
  const auto a = LoadAll(one.path()), b = LoadAll(three.path());
  ASSERT_TRUE(a.ok() && b.ok());
  EXPECT_EQ(*a, *b);
}

// Rewritten copies of a bundled model, in types that no bundled model has.
TEST(Checkpoint, StoredTypes) {
  ModelFiles model = ReadModel(BundledModel("fathom-tiny-draft"));
  Retype(model, StoredType::kF16);  // From here on every value fits fp16 and fp32.
  std::map<std::string, std::vector<float>> values;
  for (const StoredTensor& tensor : model.tensors) {
    values[tensor.name] = ToFloats(tensor.dtype, tensor.bytes);
  }
  for (const StoredType type : {StoredType::kF16, StoredType::kF32}) {
    Retype(model, type);
    const TempFolder folder;
    WriteModel(folder.path(), model);
    const auto loaded = LoadAll(folder.path());
    ASSERT_TRUE(loaded.ok()) << ToString(loaded.status());
    EXPECT_EQ((*OpenFolder(folder.path()))->stored_type(), type);
    for (const auto& [name, bytes] : *loaded) {
      EXPECT_EQ(ToFloats(StoredTypeName(type), bytes), values[name]) << name;
    }
  }
}

// Norms in fp32 in a bf16 checkpoint, as training programs store them, and every other mixture of
// vector types. The matrices decide the checkpoint's type, whatever the types of config.json and of
// the vectors are.
TEST(Checkpoint, VectorsMayHaveAnyType) {
  ModelFiles model = ReadModel(BundledModel("fathom-tiny-draft"));
  const StoredType kTypes[] = {StoredType::kF32, StoredType::kF16, StoredType::kBf16};
  size_t next = 0;
  std::map<std::string, std::pair<StoredType, std::string>> vectors;
  for (StoredTensor& tensor : model.tensors) {
    if (tensor.shape.size() > 1) continue;
    const StoredType type = kTypes[next++ % 3];
    tensor.bytes = FromFloats(type, ToFloats(tensor.dtype, tensor.bytes));
    tensor.dtype = StoredTypeName(type);
    vectors[tensor.name] = {type, tensor.bytes};
  }
  ASSERT_GE(next, 3u);
  model.config = WithKey(model.config, "torch_dtype", "\"float32\"");
  const TempFolder folder;
  WriteModel(folder.path(), model);
  const auto checkpoint = OpenFolder(folder.path());
  ASSERT_TRUE(checkpoint.ok()) << ToString(checkpoint.status());
  EXPECT_EQ((*checkpoint)->stored_type(), StoredType::kBf16);
  for (const auto& [name, stored] : vectors) {
    const auto rows = static_cast<int64_t>(stored.second.size()) / BytesOf(stored.first);
    const auto loaded = (*checkpoint)->Load(name, {.row_end = rows, .col_end = 1});
    ASSERT_TRUE(loaded.ok()) << ToString(loaded.status());
    EXPECT_EQ(loaded->type(), stored.first) << name;
    EXPECT_EQ(BytesOfTensor(*loaded), stored.second) << name;
    EXPECT_EQ((*checkpoint)->Locate(name)->type, stored.first);
  }
}

TEST(Checkpoint, TypeIsTheFilesNotTheConfigurations) {
  ModelFiles model = SmallModel(1);
  model.config = WithKey(model.config, "torch_dtype", "\"bfloat16\"");
  const TempFolder folder;
  WriteModel(folder.path(), model);
  const auto checkpoint = OpenFolder(folder.path());
  ASSERT_TRUE(checkpoint.ok()) << ToString(checkpoint.status());
  EXPECT_EQ((*checkpoint)->stored_type(), StoredType::kF32);
}

TEST(Checkpoint, TiedEmbeddings) {
  ModelFiles model = SmallModel(1);
  const StoredTensor embedding = model.Tensor("model.embed_tokens.weight");
  EXPECT_THAT(
      [&] {
        ModelFiles incomplete = model;
        incomplete.Remove("lm_head.weight");
        return Refusal(incomplete);
      }(),
      AllOf(HasSubstr("lm_head.weight"), HasSubstr("tie_word_embeddings=true")));
  Tie(model);
  const TempFolder folder;
  WriteModel(folder.path(), model);
  EXPECT_TRUE(LoadAll(folder.path()).ok());
  // An LM head that is stored although the embeddings are tied must equal the embedding.
  model.tensors.push_back(embedding);
  model.tensors.back().name = "lm_head.weight";
  WriteModel(folder.path(), model);
  EXPECT_TRUE(LoadAll(folder.path()).ok());
  model.tensors.back().bytes[5] ^= 1;
  EXPECT_THAT(Refusal(model), AllOf(HasSubstr("lm_head.weight differs from the embedding"),
                                    HasSubstr("set it to false")));
}

TEST(Checkpoint, MhaWeightsUnderGqaConfigurationAndBack) {
  ModelFiles model = ReadModel(BundledModel("fathom-tiny"));
  model.config = WithKey(model.config, "num_key_value_heads", "1");
  EXPECT_THAT(Refusal(model, 2),
              AllOf(HasSubstr("model-00001-of-00002.safetensors: tensor "
                              "model.layers.0.self_attn.k_proj.weight is BF16 [128, 256]"),
                    HasSubstr("num_key_value_heads 1, head_dim 64"), HasSubstr("says [64, 256]"),
                    HasSubstr("2 kv heads (GQA): set num_key_value_heads=2")));
  model.config = WithKey(model.config, "num_key_value_heads", "4");
  EXPECT_THAT(Refusal(model, 2), HasSubstr("says [256, 256]"));
  for (StoredTensor& tensor : model.tensors) {  // Now MHA weights.
    if (tensor.name.find("k_proj") != std::string::npos ||
        tensor.name.find("v_proj") != std::string::npos) {
      tensor.shape[0] *= 2;
      tensor.bytes += tensor.bytes;
    }
  }
  const TempFolder folder;
  WriteModel(folder.path(), model);
  EXPECT_TRUE(OpenFolder(folder.path()).ok());
  model.config = WithKey(model.config, "num_key_value_heads", "2");
  EXPECT_THAT(Refusal(model), HasSubstr("4 kv heads (MHA): set num_key_value_heads=4"));
}

TEST(Checkpoint, WaysOutOfOtherShapes) {
  const auto with = [](const char* key, const char* value) {
    ModelFiles model = SmallModel(1);
    model.config = WithKey(model.config, key, value);
    return Refusal(model);
  };
  EXPECT_THAT(with("vocab_size", "17"), HasSubstr("set vocab_size=16"));
  EXPECT_THAT(with("hidden_size", "16"), HasSubstr("set hidden_size=8"));
  EXPECT_THAT(with("intermediate_size", "24"), HasSubstr("set intermediate_size=12"));
  EXPECT_THAT(with("head_dim", "8"), HasSubstr("set head_dim=4"));
  EXPECT_THAT(with("num_hidden_layers", "3"),
              AllOf(HasSubstr("model.layers.2.input_layernorm.weight [8] is missing"),
                    HasSubstr("3 layers")));
  EXPECT_THAT(with("num_hidden_layers", "1"),
              AllOf(HasSubstr("model.layers.1."), HasSubstr("is unexpected")));
  ModelFiles qwen = SmallModel(1);
  qwen.config = WithKey(qwen.config, "architectures", "[\"Qwen2ForCausalLM\"]");
  qwen.config = WithKey(qwen.config, "model_type", "\"qwen2\"");
  EXPECT_THAT(Refusal(qwen), HasSubstr("self_attn.q_proj.bias [8] is missing"));
}

TEST(Checkpoint, MissingUnexpectedAndMistypedTensors) {
  const ModelFiles model = SmallModel(1);
  for (const StoredTensor& tensor : model.tensors) {
    ModelFiles changed = model;
    changed.Remove(tensor.name);
    EXPECT_THAT(Refusal(changed), AllOf(HasSubstr("model.safetensors: tensor " + tensor.name),
                                        HasSubstr("is missing")));
    changed = model;
    changed.Tensor(tensor.name).dtype = "I32";
    EXPECT_THAT(Refusal(changed),
                AllOf(HasSubstr(tensor.name + " is I32"), HasSubstr("BF16, F16 and F32")));
    changed = model;
    StoredTensor& half = changed.Tensor(tensor.name);
    half.dtype = "F16";
    half.bytes.resize(half.bytes.size() / 2);
    if (tensor.shape.size() > 1) {
      EXPECT_THAT(Refusal(changed),
                  AllOf(HasSubstr("tensor " + tensor.name + ", a matrix, is F16"),
                        HasSubstr("other matrices are F32"), HasSubstr("torch.float32")));
    } else {  // It is widened to fp32, so any type is accepted.
      const TempFolder folder;
      WriteModel(folder.path(), changed);
      EXPECT_TRUE(LoadAll(folder.path()).ok()) << tensor.name;
    }
    changed = model;
    changed.Tensor(tensor.name).name += "x";
    EXPECT_THAT(Refusal(changed), HasSubstr("is missing"));
  }
  ModelFiles extra = model;
  extra.tensors.push_back(
      {"model.layers.0.self_attn.q_proj.bias", "F32", {8}, std::string(32, '\0')});
  EXPECT_THAT(Refusal(extra), HasSubstr("q_proj.bias [8] is unexpected"));
  extra.tensors.back().name = "model.layers.0.self_attn.rotary_emb.inv_freq";
  const TempFolder folder;
  WriteModel(folder.path(), extra);
  EXPECT_TRUE(LoadAll(folder.path()).ok());  // Old checkpoints contain it.
}

void PutByte(const std::filesystem::path& path, size_t at, char byte) {
  std::fstream file(path, std::ios::binary | std::ios::in | std::ios::out);
  file.seekp(static_cast<std::streamoff>(at));
  file.put(byte);
  file.close();
  EXPECT_TRUE(file.good());
}

TEST(Checkpoint, EveryFlippedBitOfAHeaderIsRefusedOrHarmless) {
  const TempFolder folder;
  WriteModel(folder.path(), SmallModel(1));
  const auto expected = LoadAll(folder.path());
  ASSERT_TRUE(expected.ok());
  const auto config = ReadModelConfig(folder.path());
  const std::string file = testing::ReadFile(folder / "model.safetensors");
  const size_t header_end = 8 + static_cast<uint8_t>(file[0]) + 256 * static_cast<uint8_t>(file[1]);
  const size_t text = file.find("format");
  const size_t text_end = file.find('}', text);
  for (size_t at = 0; at < header_end; ++at) {
    for (int bit = 0; bit < 8; ++bit) {
      PutByte(folder / "model.safetensors", at, static_cast<char>(file[at] ^ (1 << bit)));
      const auto checkpoint = OpenCheckpoint(folder.path(), *config);
      if (!checkpoint.ok()) continue;
      EXPECT_TRUE(at >= text && at < text_end) << "byte " << at << " bit " << bit;
      const auto loaded = LoadAll(folder.path());
      ASSERT_TRUE(loaded.ok());
      EXPECT_EQ(*loaded, *expected);
    }
    PutByte(folder / "model.safetensors", at, file[at]);
  }
}

TEST(Checkpoint, TruncatedFilesAreRefused) {
  const TempFolder folder;
  WriteModel(folder.path(), SmallModel(1));
  const auto size = static_cast<int64_t>(std::filesystem::file_size(folder / "model.safetensors"));
  for (int64_t bytes = size - 1; bytes >= 0; bytes -= 7) {
    std::filesystem::resize_file(folder / "model.safetensors", static_cast<uintmax_t>(bytes));
    const auto checkpoint = OpenFolder(folder.path());
    ASSERT_FALSE(checkpoint.ok()) << bytes;
    EXPECT_EQ(checkpoint.status().code(), absl::StatusCode::kDataLoss) << bytes;
    EXPECT_THAT(std::string(Message(checkpoint.status())), HasSubstr("model.safetensors: "));
  }
}

TEST(Checkpoint, Index) {
  const TempFolder folder;
  WriteModel(folder.path(), SmallModel(1), 2);
  const std::filesystem::path index = folder / "model.safetensors.index.json";
  const std::string good = testing::ReadFile(index);
  const auto with = [&](std::string_view from, std::string_view to) {
    std::string text = good;
    const size_t at = text.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    text.replace(at, from.size(), to);
    WriteFile(index, text);
    return FolderRefusal(folder.path());
  };
  constexpr std::string_view kFirst = "\"model-00001-of-00002.safetensors\"";
  EXPECT_THAT(with(kFirst, "\"../model.safetensors\""), HasSubstr("in the same folder"));
  EXPECT_THAT(with(kFirst, "\"/etc/passwd\""), HasSubstr("in the same folder"));
  EXPECT_THAT(with(kFirst, "\"a\\u0000.safetensors\""), HasSubstr("in the same folder"));
  EXPECT_THAT(with(kFirst, "\"\""), HasSubstr("in the same folder"));
  EXPECT_THAT(with(kFirst, "3"), HasSubstr("in the same folder"));
  EXPECT_THAT(with(kFirst, "\"x.safetensors\""), HasSubstr("x.safetensors: cannot be opened"));
  EXPECT_THAT(with(kFirst, "\"model-00002-of-00002.safetensors\""),
              AllOf(HasSubstr("model-00001-of-00002.safetensors: tensor model.embed_tokens.weight"),
                    HasSubstr("should be in model-00002-of-00002.safetensors")));
  EXPECT_THAT(with("\"model.embed_tokens.weight\"", "\"lm_head.weight\""), HasSubstr("twice"));
  EXPECT_THAT(with("\"model.embed_tokens.weight\"", "\"model.embed\""), HasSubstr("not listed"));
  EXPECT_THAT(with("{", "{\"other\": {},"), HasSubstr("\"other\" is not known"));
  EXPECT_THAT(with("weight_map", "metadata "), HasSubstr("\"metadata \" is not known"));
  WriteFile(index, R"({"weight_map": {}})");
  EXPECT_THAT(FolderRefusal(folder.path()), HasSubstr("is empty"));
  WriteFile(index, "{}");
  EXPECT_THAT(FolderRefusal(folder.path()), HasSubstr("no object weight_map"));
  WriteFile(index, good);
  EXPECT_TRUE(OpenFolder(folder.path()).ok());
  std::filesystem::remove(folder / "model-00002-of-00002.safetensors");
  EXPECT_THAT(FolderRefusal(folder.path()),
              HasSubstr("model-00002-of-00002.safetensors: cannot be"));
}

TEST(Checkpoint, MissingFiles) {
  const TempFolder folder;
  WriteFile(folder / "config.json", SmallModel(1).config);
  EXPECT_THAT(FolderRefusal(folder.path()),
              AllOf(HasSubstr("neither model.safetensors nor"), HasSubstr("converted")));
  std::filesystem::create_directory(folder / "model.safetensors");
  EXPECT_THAT(FolderRefusal(folder.path()), HasSubstr("is not a file"));
}

TEST(Checkpoint, ValuesThatAreNotFinite) {
  const float kBad[] = {std::numeric_limits<float>::infinity(),
                        -std::numeric_limits<float>::infinity(),
                        std::numeric_limits<float>::quiet_NaN()};
  for (const StoredType type : {StoredType::kBf16, StoredType::kF16, StoredType::kF32}) {
    for (const float bad : kBad) {
      ModelFiles model = SmallModel(1);
      Retype(model, type);
      StoredTensor& tensor = model.Tensor("model.layers.1.mlp.down_proj.weight");  // [8, 12].
      std::vector<float> values = ToFloats(tensor.dtype, tensor.bytes);
      values[3 * 12 + 7] = bad;
      tensor.bytes = FromFloats(type, values);
      const TempFolder folder;
      WriteModel(folder.path(), model);
      const auto loaded = LoadAll(folder.path());
      EXPECT_EQ(loaded.status().code(), absl::StatusCode::kDataLoss);
      EXPECT_THAT(std::string(Message(loaded.status())),
                  AllOf(HasSubstr("model.safetensors: tensor model.layers.1.mlp.down_proj.weight"),
                        HasSubstr("not finite at [3, 7]")));
      // An error in a slice names the place in the whole tensor; the other half has no error.
      const auto checkpoint = OpenFolder(folder.path());
      ASSERT_TRUE(checkpoint.ok());
      const auto right =
          (*checkpoint)->Load("model.layers.1.mlp.down_proj.weight", TensorSlice{2, 8, 6, 12});
      EXPECT_THAT(std::string(Message(right.status())), HasSubstr("[3, 7]"));
      EXPECT_TRUE(
          (*checkpoint)->Load("model.layers.1.mlp.down_proj.weight", TensorSlice{0, 8, 0, 6}).ok());
    }
  }
}

TEST(Finite, EveryPatternOfSixteenBits) {
  for (const StoredType type : {StoredType::kBf16, StoredType::kF16}) {
    for (uint32_t bits = 0; bits < 65536; ++bits) {
      const auto half = static_cast<uint16_t>(bits);
      uint16_t data[1024] = {};
      const int64_t at = bits % 1000;
      data[at] = half;
      const auto bytes = std::string_view(reinterpret_cast<const char*>(&half), 2);
      const bool finite = std::isfinite(ToFloats(StoredTypeName(type), bytes)[0]);
      const auto found = FindNonFinite(type, reinterpret_cast<const std::byte*>(data), 1000);
      ASSERT_EQ(found, finite ? std::nullopt : std::optional<int64_t>(at)) << bits;
    }
  }
}

TEST(LoadFormat, Names) {
  EXPECT_EQ(*ParseLoadFormat("auto"), LoadFormat::kAuto);
  EXPECT_EQ(*ParseLoadFormat("safetensors"), LoadFormat::kSafetensors);
  EXPECT_EQ(*ParseLoadFormat("raw"), LoadFormat::kRaw);
  EXPECT_EQ(*ParseLoadFormat("dummy"), LoadFormat::kDummy);
  EXPECT_THAT(std::string(Message(ParseLoadFormat("gguf").status())),
              AllOf(HasSubstr("gguf"), HasSubstr("safetensors, raw or dummy")));
}

TEST(DummyCheckpoint, ValuesAreAFunctionOfElementAndSeed) {
  const std::filesystem::path shape = BundledModel("shapes") / "deepseek-llm-67b.json";
  const auto config = ReadModelConfig(shape);
  ASSERT_TRUE(config.ok());
  const auto open = [&](uint64_t seed) {
    auto checkpoint = OpenCheckpoint(shape, *config, LoadFormat::kDummy, seed);
    EXPECT_TRUE(checkpoint.ok()) << ToString(checkpoint.status());
    return *std::move(checkpoint);
  };
  const auto checkpoint = open(1);
  constexpr std::string_view kName = "model.layers.94.mlp.down_proj.weight";
  const TensorSlice part{100, 200, 50, 300};
  const std::string bytes = BytesOfTensor(*checkpoint->Load(kName, part));
  const std::string row = BytesOfTensor(*checkpoint->Load(kName, TensorSlice{150, 151, 0, 22016}));
  EXPECT_EQ(bytes.substr(50 * 250 * 2, 250 * 2), row.substr(50 * 2, 250 * 2));
  EXPECT_NE(bytes, BytesOfTensor(*open(2)->Load(kName, part)));
  EXPECT_NE(bytes, BytesOfTensor(*checkpoint->Load("model.layers.93.mlp.down_proj.weight", part)));
  const auto norm = checkpoint->Load("model.norm.weight", TensorSlice{0, 8192, 0, 1});
  EXPECT_EQ(ToFloats("BF16", BytesOfTensor(*norm)), std::vector<float>(8192, 1.0f));
}

TEST(DummyCheckpoint, ValuesAreNearlyNormalInEachType) {
  const TempFolder folder;
  for (const char* type : {"float32", "float16", "bfloat16"}) {
    ModelFiles model = SmallModel(1);
    model.config = WithKey(model.config, "torch_dtype", "\"" + std::string(type) + "\"");
    model.config = WithKey(model.config, "vocab_size", "100000");
    WriteFile(folder / "config.json", model.config);
    const auto config = ReadModelConfig(folder.path());
    const auto checkpoint = OpenCheckpoint(folder.path(), *config, LoadFormat::kDummy);
    ASSERT_TRUE(checkpoint.ok());
    EXPECT_EQ((*checkpoint)->stored_type(), config->stored_type);
    const auto tensor = (*checkpoint)->Load("lm_head.weight", TensorSlice{0, 100000, 0, 8});
    const std::vector<float> values =
        ToFloats(StoredTypeName(*config->stored_type), BytesOfTensor(*tensor));
    double sum = 0, squares = 0;
    for (const float value : values) {
      sum += value;
      squares += double{value} * value;
      ASSERT_LT(std::abs(value), 0.08f);
    }
    const auto count = static_cast<double>(values.size());
    EXPECT_NEAR(sum / count, 0, 1e-4);
    EXPECT_NEAR(std::sqrt(squares / count), 0.02, 1e-4);
  }
}

}  // namespace
}  // namespace fathom
