// modeling/checkpoint/file_checkpoint.h: a checkpoint whose tensors are in files. Their places come
// from the headers of safetensors or from a raw file's manifest. Only checkpoint.cc's open
// functions use it.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "modeling/checkpoint/checkpoint.h"
#include "modeling/checkpoint/checkpoint_check.h"
#include "modeling/checkpoint/weight_file.h"

namespace fathom {

struct CheckpointFiles {
  std::vector<WeightFile> files;
  std::vector<ShardHeader> headers;       // One per file.
  std::vector<std::string> header_texts;  // As stored; part of the digest.
};

// Compares the headers with the configuration. For the digest it reads 4 KiB of each tensor: about
// one MB for a model of 7 billion parameters. Without an index there is one file and `index` is
// null.
absl::StatusOr<std::unique_ptr<Checkpoint>> OpenFiles(const ModelConfig& config,
                                                      CheckpointFiles files,
                                                      const WeightMap* index);

}  // namespace fathom
