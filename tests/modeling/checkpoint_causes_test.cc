// Folders in which the cause of an error is not where the error appears: each message names the
// cause.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <string>

#include "common/status.h"
#include "modeling/checkpoint/checkpoint.h"
#include "tests/modeling/model_files.h"

namespace fathom {
namespace {

using ::testing::AllOf;
using testing::FolderRefusal;
using ::testing::HasSubstr;
using testing::ModelFiles;
using testing::OpenFolder;
using testing::SmallModel;
using testing::StoredTensor;
using testing::TempFolder;
using testing::WriteFile;
using testing::WriteModel;

// The repository was cloned without Git LFS; the message about each file says so.
TEST(CheckpointCauses, GitLfsPointersAreNamed) {
  constexpr char kPointer[] =
      "version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 14483498224\n";
  const TempFolder folder;
  WriteModel(folder.path(), SmallModel(1));
  WriteFile(folder / "model.safetensors", kPointer);
  EXPECT_THAT(
      FolderRefusal(folder.path()),
      AllOf(HasSubstr("model.safetensors: is a Git LFS pointer"), HasSubstr("git lfs pull")));
  WriteFile(folder / "config.json", kPointer);
  EXPECT_THAT(std::string(Message(ReadModelConfig(folder.path()).status())),
              HasSubstr("config.json: is a Git LFS pointer"));
}

TEST(CheckpointCauses, ANamePrefixOfAllTensorsIsNamed) {
  for (const char* prefix : {"module.", "language_model.", "base_model.model."}) {
    ModelFiles model = SmallModel(1);
    for (StoredTensor& tensor : model.tensors) tensor.name = prefix + tensor.name;
    const TempFolder folder;
    WriteModel(folder.path(), model);
    EXPECT_THAT(
        FolderRefusal(folder.path()),
        AllOf(HasSubstr(fmt::format("begin with \"{}\"", prefix)), HasSubstr("save_pretrained")));
  }
  ModelFiles model = SmallModel(1);
  for (StoredTensor& tensor : model.tensors) {
    if (tensor.name.starts_with("model.")) tensor.name = tensor.name.substr(6);
  }
  const TempFolder folder;
  WriteModel(folder.path(), model);
  EXPECT_THAT(FolderRefusal(folder.path()),
              AllOf(HasSubstr("lack \"model.\""), HasSubstr("AutoModelForCausalLM")));
}

TEST(CheckpointCauses, TwoCheckpointsInOneFolderAreRefused) {
  const TempFolder folder;
  WriteModel(folder.path(), SmallModel(1), 2);
  ASSERT_TRUE(OpenFolder(folder.path()).ok());
  WriteModel(folder.path(), SmallModel(2));
  EXPECT_THAT(FolderRefusal(folder.path()),
              AllOf(HasSubstr("has two checkpoints, model.safetensors and the files that "
                              "model.safetensors.index.json lists"),
                    HasSubstr("move one of them")));
  std::filesystem::remove(folder / "model.safetensors.index.json");
  EXPECT_TRUE(OpenFolder(folder.path()).ok());
}

TEST(CheckpointCauses, AFolderMayBeNamedLikeAConfiguration) {
  const TempFolder folder;
  const std::filesystem::path model = folder / "model.json";
  std::filesystem::create_directory(model);
  WriteModel(model, SmallModel(1));
  EXPECT_TRUE(ReadModelConfig(model).ok()) << ToString(ReadModelConfig(model).status());
  EXPECT_TRUE(OpenFolder(model).ok());
}

}  // namespace
}  // namespace fathom
