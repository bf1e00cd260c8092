// modeling/checkpoint/file_checkpoint.h: a checkpoint whose tensors lie in files, whatever says
// where: headers of safetensors or a raw file's manifest. For checkpoint.cc's openers only.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "modeling/checkpoint/checkpoint.h"
#include "modeling/checkpoint/checkpoint_check.h"
#include "modeling/checkpoint/weight_file.h"

namespace fathom::worker {

struct CheckpointFiles {
  std::vector<WeightFile> files;
  std::vector<ShardHeader> headers;       // One per file.
  std::vector<std::string> header_texts;  // As stored, for the digest.
};

// Compares the headers with the configuration. Reads 4 KiB of each tensor for the digest: about a
// MB of a model of 7 billion. Without an index there is one file and `index` is null.
absl::StatusOr<std::unique_ptr<Checkpoint>> OpenFiles(const ModelConfig& config,
                                                      CheckpointFiles files,
                                                      const WeightMap* index);

}  // namespace fathom::worker
