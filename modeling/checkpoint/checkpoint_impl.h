// modeling/checkpoint/checkpoint_impl.h: the kinds of checkpoints that OpenCheckpoint chooses from.
// For checkpoint.cc and tests only.
#pragma once

#include <memory>

#include "modeling/checkpoint/checkpoint.h"

namespace fathom {

absl::StatusOr<std::unique_ptr<Checkpoint>> OpenSafetensors(const std::filesystem::path& folder,
                                                            const ModelConfig& config);
absl::StatusOr<std::unique_ptr<Checkpoint>> OpenRaw(const std::filesystem::path& folder,
                                                    const ModelConfig& config);
absl::StatusOr<std::unique_ptr<Checkpoint>> OpenDummy(const ModelConfig& config, uint64_t seed);

}  // namespace fathom
