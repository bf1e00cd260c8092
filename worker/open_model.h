// worker/open_model.h: the contents of the model folder except the weights, and of the draft
// model's folder. Thread: main.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "common/clock.h"
#include "common/status.h"
#include "modeling/checkpoint/checkpoint.h"
#include "modeling/config/model_config.h"
#include "modeling/spec/model_spec.h"
#include "text/guided/grammar_engine.h"
#include "worker/options.h"

namespace fathom::worker {

struct Model {
  std::filesystem::path folder;
  ModelConfig config;
  ModelSpec spec;
  std::string config_digest;
  std::unique_ptr<Checkpoint> checkpoint;
  // Null: the build has no grammar engine, or the folder has no tokenizer that this build reads.
  std::unique_ptr<GrammarEngine> grammars;
  std::unique_ptr<Model> draft;  // With --speculative-model.
};

// Reads configurations and headers and checks them against each other and the group's shape. Prints
// how long each part took. Errors name the file, the key or the flag.
absl::StatusOr<Model> OpenModel(const Options& options, const Clock& clock);

}  // namespace fathom::worker
