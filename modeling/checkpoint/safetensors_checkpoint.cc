// Weights from safetensors: one file, or shards with an index.
#include <algorithm>
#include <set>

#include "common/lfs_pointer.h"
#include "common/status.h"
#include "modeling/checkpoint/checkpoint_impl.h"
#include "modeling/checkpoint/file_checkpoint.h"

namespace fathom {
namespace {

constexpr std::string_view kSingleFile = "model.safetensors";
constexpr uint64_t kIndexBytesMax = 64 << 20;
constexpr uint64_t kLfsPointerBytes = 128;  // Enough to recognize a pointer file of Git LFS.

absl::Status AddFile(const std::filesystem::path& path, CheckpointFiles& files) {
  FATHOM_ASSIGN_OR_RETURN(WeightFile file, WeightFile::Open(path));
  const size_t prefix_bytes = std::min(kSafetensorsPrefixBytes, file.bytes());
  FATHOM_ASSIGN_OR_RETURN(const std::string begin,
                          file.ReadText(0, std::min(kLfsPointerBytes, file.bytes())));
  if (IsLfsPointer(begin)) return Invalid("{}: {}", path.string(), kLfsPointerMessage);
  const std::string prefix = begin.substr(0, prefix_bytes);
  const auto header_bytes = SafetensorsHeaderBytes(prefix, file.bytes());
  if (!header_bytes.ok()) return Annotate(header_bytes.status(), file.name());
  FATHOM_ASSIGN_OR_RETURN(std::string header,
                          file.ReadText(kSafetensorsPrefixBytes, *header_bytes));
  auto tensors = ParseSafetensorsHeader(header, file.bytes());
  if (!tensors.ok()) return Annotate(tensors.status(), file.name());
  files.headers.push_back({file.name(), *std::move(tensors)});
  files.header_texts.push_back(std::move(header));
  files.files.push_back(std::move(file));
  return absl::OkStatus();
}

absl::StatusOr<WeightMap> ReadIndex(const std::filesystem::path& path) {
  FATHOM_ASSIGN_OR_RETURN(const WeightFile file, WeightFile::Open(path));
  if (file.bytes() > kIndexBytesMax) {
    return Invalid("{}: {} bytes; the limit is {}", file.name(), file.bytes(), kIndexBytesMax);
  }
  FATHOM_ASSIGN_OR_RETURN(const std::string text, file.ReadText(0, file.bytes()));
  auto map = ParseWeightMap(text);
  if (!map.ok()) return Annotate(map.status(), file.name());
  return map;
}

// A single file and shards beside it are two checkpoints. They are refused, because the code cannot
// know which one is meant. An index that lists only the single file belongs to the same checkpoint.
absl::Status CheckOneCheckpoint(const std::filesystem::path& folder) {
  FATHOM_ASSIGN_OR_RETURN(const WeightMap index, ReadIndex(folder / kIndexFile));
  std::error_code error;
  for (const auto& [tensor, file] : index) {
    if (file == kSingleFile || !std::filesystem::exists(folder / file, error)) continue;
    return Invalid(
        "{}: has two checkpoints, {} and the files that {} lists (e.g. {}); move one of them out "
        "of the folder",
        folder.string(), kSingleFile, kIndexFile, file);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Checkpoint>> OpenSafetensors(const std::filesystem::path& folder,
                                                            const ModelConfig& config) {
  CheckpointFiles files;
  WeightMap index;
  std::error_code error;  // A path that cannot be read counts as missing.
  if (std::filesystem::exists(folder / kSingleFile, error)) {
    if (std::filesystem::exists(folder / kIndexFile, error)) {
      FATHOM_RETURN_IF_ERROR(CheckOneCheckpoint(folder));
    }
    FATHOM_RETURN_IF_ERROR(AddFile(folder / kSingleFile, files));
  } else if (std::filesystem::exists(folder / kIndexFile, error)) {
    FATHOM_ASSIGN_OR_RETURN(index, ReadIndex(folder / kIndexFile));
    std::set<std::string> names;
    for (const auto& [tensor, file] : index) names.insert(file);
    for (const std::string& name : names) FATHOM_RETURN_IF_ERROR(AddFile(folder / name, files));
  } else {
    return NotFound(
        "{}: has neither {} nor {} (nor a raw checkpoint's weights.json); other formats "
        "(pytorch_model.bin, GGUF) must be converted to safetensors",
        folder.string(), kSingleFile, kIndexFile);
  }
  return OpenFiles(config, std::move(files), index.empty() ? nullptr : &index);
}

}  // namespace fathom
