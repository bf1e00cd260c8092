// The names of vLLM for the router's metrics, with its types, labels and buckets, so that
// dashboards and load balancers that were made for it work unchanged.
#include <string>
#include <vector>

#include "router/router_metrics.h"

namespace fathom::router {
namespace {

const std::vector<double> kFirstToken = {.001, .005, .01, .02, .04, .06, .08, .1, .25, .5,  .75,
                                         1,    2.5,  5,   7.5, 10,  20,  40,  80, 160, 640, 2560};
const std::vector<double> kToken = {.01, .025, .05, .075, .1,  .15, .2, .3, .4, .5,
                                    .75, 1,    2.5, 5,    7.5, 10,  20, 40, 80};
const std::vector<double> kRequest = {.3, .5, .8, 1,  1.5, 2,   2.5, 5,   10,   15,  20,
                                      30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680};
// The numbers of tokens and of answers.
const std::vector<double> kTokens = TokenBuckets();

Metrics::Labels With(Metrics::Labels labels, const char* name, const char* value) {
  labels[name] = value;
  return labels;
}

}  // namespace

void RouterMetrics::AddRequestAliases(Metrics* metrics, const Metrics::Labels& own) {
  const auto times = [&](const char* name, const Histogram& of, const std::vector<double>& bounds) {
    metrics->AddAlias(name, "As vLLM counts it.", own, of, bounds);
  };
  times("vllm:time_to_first_token_seconds", first_token_, kFirstToken);
  times("vllm:inter_token_latency_seconds", gap_, kToken);
  times("vllm:request_time_per_output_token_seconds", per_token_, kToken);
  times("vllm:e2e_request_latency_seconds", whole_, kRequest);
  times("vllm:request_queue_time_seconds", queue_, kRequest);
  times("vllm:request_inference_time_seconds", inference_, kRequest);
  times("vllm:request_prefill_time_seconds", prefill_, kRequest);
  times("vllm:request_decode_time_seconds", decode_, kRequest);
  times("vllm:request_prompt_tokens", prompt_, kTokens);
  times("vllm:request_generation_tokens", generated_, kTokens);
  times("vllm:request_params_max_tokens", max_tokens_, kTokens);
  metrics->AddAlias(
      "vllm:iteration_tokens_total", "Tokens of a step of the cluster.", own, [cluster = cluster_] {
        const std::lock_guard lock(cluster->mutex);
        const StepTokens& steps = cluster->step_tokens;
        return Metrics::Counts{{StepTokens::kBounds.begin(), StepTokens::kBounds.end()},
                               {steps.counts.begin(), steps.counts.end()},
                               static_cast<double>(steps.sum)};
      });

  metrics->AddAlias("vllm:generation_tokens_total", "Generated tokens.", own, {tokens_});
  metrics->AddAlias("vllm:prompt_tokens_total", "Prompt tokens.", own, {prompt_tokens_});
  metrics->AddAlias("vllm:prefix_cache_queries_total", "Prompt tokens.", own, {prompt_tokens_});
  metrics->AddAlias("vllm:prefix_cache_hits_total", "Cached ones.", own, {cached_tokens_});
  metrics->AddAlias("vllm:spec_decode_num_draft_tokens_total", "Drafts.", own, {drafted_tokens_});
  metrics->AddAlias("vllm:spec_decode_num_accepted_tokens_total", "Kept drafts.", own,
                    {accepted_drafts_});
  metrics->AddAlias("vllm:num_preemptions_total", "Preemptions.", own, {preemptions_});
  std::vector<Counter> errors;
  for (const auto& [code, counter] : refused_) {
    if (code != absl::StatusCode::kCancelled) errors.push_back(ended_[std::string(CodeName(code))]);
  }
  const auto success = [&](const char* reason, const std::vector<Counter>& of) {
    metrics->AddAlias("vllm:request_success_total", "Requests by how they ended.",
                      With(own, "finished_reason", reason), of);
  };
  success("stop", {ended_["END_TOKEN"], ended_["STOP_TOKEN"], ended_["STOP_STRING"]});
  success("length", {ended_["LENGTH"]});
  success("abort", {ended_["CANCELLED"], ended_["DEADLINE"], ended_["SUSPENDED"]});
  success("error", errors);
}

void RouterMetrics::AddClusterAliases(Metrics* metrics, const Metrics::Labels& own) {
  running_ = metrics->AddGauge("cluster_requests_running", "Sequences in a slot, of the cluster.");
  waiting_ = metrics->AddGauge("cluster_requests_waiting", "Requests that wait, of the cluster.");
  const auto waiting = [&](const char* reason, const char* help) {
    return metrics->AddGauge("cluster_requests_waiting_by_reason", help, {{"reason", reason}});
  };
  const char* const help = "capacity: for slots or blocks; deferred: for a group or the next step.";
  waiting_capacity_ = waiting("capacity", help);
  waiting_deferred_ = waiting("deferred", help);
  kv_usage_ = metrics->AddGauge("cluster_kv_cache_usage_ratio", "Used KV blocks of all, 0 to 1.");
  metrics->AddAlias("vllm:num_requests_running", "Running requests.", own, running_);
  metrics->AddAlias("vllm:num_requests_waiting", "Waiting requests.", own, waiting_);
  metrics->AddAlias("vllm:num_requests_waiting_by_reason", "Waiting requests, by reason.",
                    With(own, "reason", "capacity"), waiting_capacity_);
  metrics->AddAlias("vllm:num_requests_waiting_by_reason", "Waiting requests, by reason.",
                    With(own, "reason", "deferred"), waiting_deferred_);
  metrics->AddAlias("vllm:kv_cache_usage_perc", "Used KV blocks, 0 to 1.", own, kv_usage_);
  metrics->AddFamily("vllm:cache_config_info", "The KV cache of a group.", Metrics::Kind::kGauge,
                     [cluster = cluster_, own] {
                       const std::lock_guard lock(cluster->mutex);
                       const ClusterFacts& facts = cluster->facts;
                       if (facts.pool_blocks == 0) return std::vector<Metrics::Sample>{};
                       Metrics::Labels labels = own;
                       labels["block_size"] = std::to_string(facts.block_tokens);
                       labels["num_gpu_blocks"] = std::to_string(facts.pool_blocks);
                       return std::vector<Metrics::Sample>{{labels, 1}};
                     });
}

}  // namespace fathom::router
