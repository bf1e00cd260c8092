#include "worker/open_model.h"

#include <utility>

#include "common/log.h"
#include "common/server_process.h"
#include "modeling/architectures/architecture.h"
#include "modeling/checkpoint/model_digest.h"
#include "modeling/spec/rank_model.h"
#include "modeling/spec/stages.h"
#include "text/tokenizer.h"

namespace fathom::worker {

namespace {

// Without a tokenizer the worker computes all requests but guided ones.
std::unique_ptr<GrammarEngine> GrammarsOf(const Model& model) {
  if (!GrammarEngine::Built() || !std::filesystem::exists(model.folder / "tokenizer.json")) {
    return nullptr;
  }
  const auto tokenizer = Tokenizer::Load(model.folder.string());
  absl::Status status = tokenizer.status();
  if (tokenizer.ok()) {
    auto engine = GrammarEngine::Make(**tokenizer, model.spec.vocab);
    if (engine.ok()) return *std::move(engine);
    status = engine.status();
  }
  LogWarn("no guided output: {}", Message(status));
  return nullptr;
}

}  // namespace

absl::StatusOr<Model> OpenModel(const Options& options, const Clock& clock) {
  Model model;
  model.folder = options.model;
  FATHOM_RETURN_IF_ERROR(TimedPhase(clock, "config", [&]() -> absl::Status {
    FATHOM_ASSIGN_OR_RETURN(model.config, ReadModelConfig(model.folder, options.hf_overrides));
    model.config_digest = ConfigDigest(model.config);
    model.spec = SpecOf(model.config);
    const absl::Status shared = CheckTensorParallel(model.spec, options.tp);
    return shared.ok() ? CheckStages(model.spec, options.pp) : shared;
  }));
  FATHOM_RETURN_IF_ERROR(TimedPhase(clock, "headers", [&]() -> absl::Status {
    FATHOM_ASSIGN_OR_RETURN(const LoadFormat format, ParseLoadFormat(options.load_format));
    FATHOM_ASSIGN_OR_RETURN(model.checkpoint, OpenCheckpoint(model.folder, model.config, format));
    return absl::OkStatus();
  }));
  model.grammars = TimedPhase(clock, "grammars", [&] { return GrammarsOf(model); });
  if (options.speculative.method != SpeculativeMethod::kDraft) return model;
  Options draft = options;  // Of another model and on one rank.
  draft.model = options.speculative.model;
  draft.hf_overrides.clear();
  draft.tp = draft.pp = 1;
  draft.speculative = {};
  auto opened = OpenModel(draft, clock);
  if (!opened.ok()) return Annotate(opened.status(), "--speculative-model " + draft.model);
  FATHOM_RETURN_IF_ERROR(CheckDraftModel(model.config, opened->config));
  model.draft = std::make_unique<Model>(*std::move(opened));
  return model;
}

}  // namespace fathom::worker
