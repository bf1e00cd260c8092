#include "router/api/readiness.h"

#include "common/check.h"
#include "common/reason.h"
#include "common/retry_delay.h"

namespace fathom::router {
namespace {

absl::Status NotReady(absl::Status status, Reason reason, const Sessions::View& view) {
  return WithReason(std::move(status), reason, "", RetryWhileAwayMs(view.unable_us, view.number));
}

}  // namespace

absl::Status CanAdmit(const ModelFolder& folder, const Sessions::View& view) {
  if (!view.facts) {
    return NotReady(
        Unavailable(
            "no scheduler has answered yet; see whether the process that --scheduler names runs"),
        Reason::kNoScheduler, view);
  }
  const ClusterFacts& facts = *view.facts;
  if (facts.config_digest.empty() || facts.context_tokens <= 0 || facts.pool_blocks <= 0) {
    return NotReady(
        Unavailable(
            "no worker has registered with the scheduler yet; the model is perhaps still loading"),
        Reason::kNoWorkers, view);
  }
  if (facts.config_digest != folder.config_digest || facts.vocab != folder.vocab) {
    return NotReady(
        Unavailable("the workers' model has another config.json (digest {}..., vocabulary {}) than "
                    "this router's "
                    "folder {} (digest {}..., vocabulary {}); start both on the same model folder",
                    facts.config_digest.substr(0, 12), facts.vocab, folder.name,
                    folder.config_digest.substr(0, 12), folder.vocab),
        Reason::kModelMismatch, view);
  }
  return absl::OkStatus();
}

absl::Status Readiness(const ModelFolder& folder, const Sessions::View& view) {
  if (!view.up) {
    return NotReady(
        Unavailable("no scheduler leads now; see whether the process that --scheduler names runs"),
        Reason::kNoScheduler, view);
  }
  FATHOM_RETURN_IF_ERROR(CanAdmit(folder, view));
  if (view.facts->groups == 0) {
    return NotReady(
        Unavailable("no group of workers can take work now; one is perhaps being replaced"),
        Reason::kNoWorkers, view);
  }
  return absl::OkStatus();
}

ModelFacts FactsOf(const ModelFolder& folder, const std::string& served_name,
                   bool has_chat_template, const Sessions::View& view) {
  FATHOM_CHECK(view.facts.has_value());
  ModelFacts facts;
  facts.name = served_name;
  facts.vocab = folder.vocab;
  facts.context_tokens = view.facts->context_tokens;
  facts.pool_tokens = int64_t{view.facts->pool_blocks} * view.facts->block_tokens;
  facts.end_token_ids = folder.end_token_ids;
  facts.defaults = folder.defaults;
  facts.has_tokenizer = folder.has_tokenizer;
  facts.has_chat_template = has_chat_template;
  return facts;
}

}  // namespace fathom::router
