#include "modeling/checkpoint/raw_checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "common/status.h"
#include "modeling/architectures/architecture.h"
#include "modeling/checkpoint/checkpoint.h"
#include "modeling/spec/rank_model.h"
#include "tests/modeling/model_files.h"

namespace fathom {
namespace {

using ::testing::HasSubstr;
using testing::ModelFiles;
using testing::SmallModel;
using testing::StoredTensor;
using testing::TempFolder;
using testing::WriteFile;
using testing::WriteModel;
using Json = nlohmann::ordered_json;

struct Raw {
  Json manifest;
  std::string bytes;
};

Raw MakeRaw(const ModelFiles& model, size_t alignment = 4096) {
  Raw raw;
  raw.manifest["alignment"] = alignment;
  for (const StoredTensor& tensor : model.tensors) {
    raw.bytes.resize((raw.bytes.size() + alignment - 1) / alignment * alignment, '\0');
    raw.manifest["tensors"].push_back({{"name", tensor.name},
                                       {"dtype", tensor.dtype},
                                       {"shape", tensor.shape},
                                       {"offset", raw.bytes.size()}});
    raw.bytes += tensor.bytes;
  }
  return raw;
}

void WriteRaw(const std::filesystem::path& folder, const ModelFiles& model, const Raw& raw) {
  WriteFile(folder / "config.json", model.config);
  WriteFile(folder / "weights.json", raw.manifest.dump());
  WriteFile(folder / "weights.raw", raw.bytes);
}

absl::StatusOr<std::unique_ptr<Checkpoint>> Open(const std::filesystem::path& folder,
                                                 LoadFormat format = LoadFormat::kAuto) {
  FATHOM_ASSIGN_OR_RETURN(const ModelConfig config, ReadModelConfig(folder));
  return OpenCheckpoint(folder, config, format);
}

absl::StatusOr<std::map<std::string, std::string>> LoadAll(const std::filesystem::path& folder,
                                                           LoadFormat format = LoadFormat::kAuto) {
  FATHOM_ASSIGN_OR_RETURN(const ModelConfig config, ReadModelConfig(folder));
  FATHOM_ASSIGN_OR_RETURN(const auto checkpoint, OpenCheckpoint(folder, config, format));
  std::map<std::string, std::string> tensors;
  for (const Parameter& spec : ExpectedTensors(SpecOf(config))) {
    FATHOM_ASSIGN_OR_RETURN(const HostTensor tensor, checkpoint->Load(spec.name, WholeOf(spec)));
    tensors[spec.name] = {reinterpret_cast<const char*>(tensor.data()),
                          static_cast<size_t>(tensor.bytes())};
  }
  return tensors;
}

TEST(RawCheckpoint, HoldsWhatSafetensorsHold) {
  const ModelFiles model = SmallModel(2);
  for (const size_t alignment : {64u, 4096u}) {
    const TempFolder safetensors, raw;
    WriteModel(safetensors.path(), model);
    WriteRaw(raw.path(), model, MakeRaw(model, alignment));
    const auto a = LoadAll(safetensors.path()), b = LoadAll(raw.path());
    ASSERT_TRUE(a.ok() && b.ok()) << ToString(b.status());
    EXPECT_EQ(*a, *b);
    EXPECT_TRUE(Open(raw.path(), LoadFormat::kRaw).ok());
  }
}

TEST(RawCheckpoint, BesideSafetensorsOneMustBeChosen) {
  const ModelFiles model = SmallModel(2), other = SmallModel(3);
  const TempFolder folder;
  WriteRaw(folder.path(), other, MakeRaw(other));
  const auto raw = LoadAll(folder.path());
  WriteModel(folder.path(), model);
  EXPECT_THAT(std::string(Message(LoadAll(folder.path()).status())),
              HasSubstr("has two checkpoints, one of safetensors and a raw one (weights.json)"));
  const auto chosen = LoadAll(folder.path(), LoadFormat::kSafetensors);
  const auto named = LoadAll(folder.path(), LoadFormat::kRaw);
  ASSERT_TRUE(raw.ok() && chosen.ok() && named.ok());
  EXPECT_EQ(*named, *raw);
  EXPECT_NE(*chosen, *raw);
  const TempFolder empty;
  WriteFile(empty / "config.json", model.config);
  EXPECT_THAT(std::string(Message(Open(empty.path(), LoadFormat::kRaw).status())),
              HasSubstr("weights.json: cannot be opened"));
}

TEST(RawCheckpoint, EveryTruncationIsRefused) {
  const ModelFiles model = SmallModel(2);
  Raw raw = MakeRaw(model, 64);
  const TempFolder folder;
  WriteRaw(folder.path(), model, raw);
  ASSERT_TRUE(Open(folder.path()).ok());
  for (size_t bytes = 0; bytes < raw.bytes.size(); bytes += 37) {
    WriteFile(folder / "weights.raw", raw.bytes.substr(0, bytes));
    EXPECT_EQ(Open(folder.path()).status().code(), absl::StatusCode::kDataLoss) << bytes;
  }
  WriteFile(folder / "weights.raw", raw.bytes + std::string(5, '\0'));
  EXPECT_THAT(std::string(Message(Open(folder.path()).status())),
              HasSubstr("weights.json: 5 bytes after the last tensor in weights.raw"));
}

TEST(RawCheckpoint, ManifestsThatLie) {
  const ModelFiles model = SmallModel(2);
  const Raw good = MakeRaw(model);
  const TempFolder folder;
  const auto refusal = [&](auto change) {
    Raw raw = good;
    change(raw.manifest);
    WriteRaw(folder.path(), model, raw);
    const auto opened = Open(folder.path());
    EXPECT_FALSE(opened.ok());
    return std::string(Message(opened.status()));
  };
  const auto first = [&](std::string_view key, const Json& value) {
    return refusal([&](Json& m) { m["tensors"][0][std::string(key)] = value; });
  };
  EXPECT_THAT(refusal([](Json& m) { m.erase("alignment"); }), HasSubstr("a power of 2"));
  EXPECT_THAT(refusal([](Json& m) { m["alignment"] = 4095; }), HasSubstr("a power of 2"));
  EXPECT_THAT(refusal([](Json& m) { m["alignment"] = "4096"; }), HasSubstr("a power of 2"));
  EXPECT_THAT(refusal([](Json& m) { m["alignment"] = 1 << 22; }), HasSubstr("a power of 2"));
  EXPECT_THAT(refusal([](Json& m) { m["alignment"] = 64; }), HasSubstr("gap or overlap"));
  EXPECT_THAT(refusal([](Json& m) { m.erase("tensors"); }), HasSubstr("no array tensors"));
  EXPECT_THAT(refusal([](Json& m) { m["more"] = 1; }), HasSubstr("\"more\" is not known"));
  EXPECT_THAT(refusal([](Json& m) { m = 3; }), HasSubstr("expected an object"));
  EXPECT_THAT(refusal([](Json& m) { m["tensors"][0].erase("shape"); }), HasSubstr("expected name"));
  EXPECT_THAT(first("name", 3), HasSubstr("name is not valid"));
  EXPECT_THAT(first("shape", Json::array()), HasSubstr("shape is not valid"));
  EXPECT_THAT(first("shape", {-1, 8}), HasSubstr("shape is not valid"));
  EXPECT_THAT(first("shape", {int64_t{1} << 62, 16}), HasSubstr("overflows"));
  EXPECT_THAT(first("dtype", "Q4"), HasSubstr("\"Q4\" is unknown"));
  EXPECT_THAT(first("dtype", "F16"), HasSubstr("is F16, other matrices are F32"));
  EXPECT_THAT(first("offset", -4096), HasSubstr("offset is not valid"));
  EXPECT_THAT(first("offset", 64), HasSubstr("gap or overlap"));
  EXPECT_THAT(first("offset", int64_t{0x7FFFFFFFFFFFF000}), HasSubstr("gap or overlap"));
  EXPECT_THAT(refusal([](Json& m) { m["tensors"][1]["offset"] = 0; }), HasSubstr("gap or overlap"));
  EXPECT_THAT(refusal([](Json& m) { m["tensors"][2]["name"] = m["tensors"][1]["name"]; }),
              HasSubstr("is listed twice"));
  EXPECT_THAT(first("name", "model.other.weight"),
              HasSubstr("weights.raw: tensor model.embed_tokens.weight [16, 8] is missing"));
  // Writes everything again, unchanged.
  WriteRaw(folder.path(), model, good);
  EXPECT_TRUE(Open(folder.path()).ok());
  for (size_t cut = 0; cut < good.manifest.dump().size(); cut += 11) {
    WriteFile(folder / "weights.json", good.manifest.dump().substr(0, cut));
    EXPECT_FALSE(Open(folder.path()).ok()) << cut;
  }
}

TEST(RawCheckpoint, DigestSeesEachPart) {
  const ModelFiles model = SmallModel(2);
  const TempFolder folder;
  WriteRaw(folder.path(), model, MakeRaw(model));
  const std::string digest = (*Open(folder.path()))->weights_digest();
  WriteRaw(folder.path(), model, MakeRaw(model, 64));
  EXPECT_NE((*Open(folder.path()))->weights_digest(), digest);
  Raw raw = MakeRaw(model);
  raw.bytes[0] ^= 1;
  WriteRaw(folder.path(), model, raw);
  EXPECT_NE((*Open(folder.path()))->weights_digest(), digest);
}

}  // namespace
}  // namespace fathom
