#include <gtest/gtest.h>

#include <set>

#include "common/status.h"
#include "modeling/checkpoint/checkpoint.h"
#include "modeling/checkpoint/model_digest.h"
#include "tests/modeling/model_files.h"

namespace fathom {
namespace {

using testing::ModelFiles;
using testing::SmallModel;
using testing::TempFolder;
using testing::WithKey;
using testing::WriteFile;
using testing::WriteModel;

std::string WeightsDigest(const ModelFiles& model, int files = 1) {
  const TempFolder folder;
  WriteModel(folder.path(), model, files);
  const auto config = ReadModelConfig(folder.path());
  EXPECT_TRUE(config.ok()) << ToString(config.status());
  const auto checkpoint = OpenCheckpoint(folder.path(), *config);
  EXPECT_TRUE(checkpoint.ok()) << ToString(checkpoint.status());
  return (*checkpoint)->weights_digest();
}

TEST(Digest, Sha256) {  // FIPS 180-2, appendix B.
  Sha256 sha;
  sha.Update("a");
  sha.Update("bc");
  EXPECT_EQ(sha.Hex(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST(Digest, FieldsDoNotRunTogether) {
  const auto digest = [](std::string_view a, std::string_view b) {
    DigestBuilder builder;
    builder.Add(a);
    builder.Add(b);
    return builder.Finish();
  };
  EXPECT_NE(digest("ab", "c"), digest("a", "bc"));
  EXPECT_EQ(digest("ab", "c"), digest("ab", "c"));
}

// Without overrides the digest is the SHA-256 of the file; with overrides it is that of the changed
// text.
TEST(Digest, ConfigDigestIsOfTheTextThatIsRead) {
  const TempFolder folder;
  const std::string text = SmallModel(1).config;
  WriteFile(folder / "config.json", text);
  Sha256 sha;
  sha.Update(text);
  const auto config = ReadModelConfig(folder.path());
  ASSERT_TRUE(config.ok());
  const std::string digest = ConfigDigest(*config);
  EXPECT_EQ(digest, sha.Hex());
  EXPECT_EQ(ConfigDigest(*ReadModelConfig(folder / "config.json")), digest);
  const auto changed = ReadModelConfig(folder.path(), R"({"rope_theta": 20000.0})");
  ASSERT_TRUE(changed.ok());
  EXPECT_NE(ConfigDigest(*changed), digest);
  EXPECT_EQ(ConfigDigest(*ReadModelConfig(folder.path(), R"({"rope_theta": 20000.0})")),
            ConfigDigest(*changed));
}

TEST(Digest, WeightsDigestSeesEachPart) {
  std::set<std::string> digests;
  const ModelFiles model = SmallModel(1);
  digests.insert(WeightsDigest(model));
  EXPECT_EQ(WeightsDigest(model), *digests.begin());
  digests.insert(WeightsDigest(model, 2));
  digests.insert(WeightsDigest(model, 3));
  ModelFiles changed = model;
  changed.config += "\n";
  digests.insert(WeightsDigest(changed));
  size_t count = 4;
  for (size_t i = 0; i < model.tensors.size(); ++i, ++count) {
    changed = model;
    changed.tensors[i].bytes[0] ^= 1;
    digests.insert(WeightsDigest(changed));
  }
  EXPECT_EQ(digests.size(), count);
}

TEST(Digest, DummyWeightsAreConfigurationAndSeed) {
  const TempFolder folder;
  std::set<std::string> digests;
  for (const char* context : {"64", "128"}) {
    WriteFile(folder / "config.json",
              WithKey(SmallModel(1).config, "max_position_embeddings", context));
    const auto config = ReadModelConfig(folder.path());
    for (const uint64_t seed : {0, 1}) {
      const auto dummy = OpenCheckpoint(folder.path(), *config, LoadFormat::kDummy, seed);
      digests.insert((*dummy)->weights_digest());
    }
  }
  EXPECT_EQ(digests.size(), 4u);
}

TEST(Digest, FingerprintSeesEachPart) {
  const FingerprintParts base{.weights_digest = "w", .dtype = "float32", .device_kind = "cpu"};
  std::set<std::string> fingerprints = {Fingerprint(base)};
  EXPECT_EQ(Fingerprint(base).size(), 32u);
  const auto with = [&](auto change) {
    FingerprintParts parts = base;
    change(parts);
    fingerprints.insert(Fingerprint(parts));
  };
  with([](FingerprintParts& parts) { parts.weights_digest = "v"; });
  with([](FingerprintParts& parts) { parts.dtype = "bfloat16"; });
  with([](FingerprintParts& parts) { parts.device_kind = "cuda-sm90"; });
  with([](FingerprintParts& parts) { parts.tp = 2; });
  with([](FingerprintParts& parts) { parts.recipe_version = kRecipeVersion + 1; });
  EXPECT_EQ(fingerprints.size(), 6u);
}

}  // namespace
}  // namespace fathom
