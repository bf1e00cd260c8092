#include "worker/open_model.h"

#include <utility>

#include "common/server_process.h"
#include "modeling/architectures/architecture.h"
#include "modeling/checkpoint/model_digest.h"
#include "modeling/spec/rank_model.h"
#include "modeling/spec/stages.h"

namespace fathom::worker {

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
