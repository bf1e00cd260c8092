// fathom-sim: the scheduler core under simulated load (timed_world.h). It prints a row for each
// rate and tenant; docs/PERFORMANCE.md, "Scheduling, simulated", has the commands of its figures.
// It is a program for developers and is not installed.
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "cluster/protocol.h"
#include "common/flags.h"
#include "common/output.h"
#include "common/status.h"
#include "scheduler/core/policy.h"
#include "tests/sim/timed/shapes.h"
#include "tests/sim/timed/timed_report.h"
#include "tests/sim/timed/timed_world.h"
#include "tests/sim/timed/traffic.h"

namespace fathom::sim {
namespace {

struct SimFlags {
  std::string model = "deepseek-llm-7b";
  std::string card = "h200";
  int32_t tp = 1;
  int32_t groups = 1;
  int32_t context_tokens = 0;
  int32_t step_tokens = 0;
  bool whole_prompts = false;
  bool prefix_caching = true;
  int64_t swap_bytes = 0;
  int32_t tenant_running_max = 0, tenant_queued_max = 0;
  std::string policy = "fcfs";
  std::string placement = "core";
  int32_t waiting_max = 4096;
  int32_t overtakes_max = scheduler::CoreOptions().overtakes_max;
  std::string workload = "sharegpt";
  std::string arrivals = "poisson";
  int32_t input_len = 1000, output_len = 1000;
  double scale = 1;
  std::string rates = "8";
  std::string tenants = "default=1";
  double seconds = 60, warmup = 10;
  double group_loss_s = 0, router_loss_s = 0;
  int32_t check_every = 0;
  int64_t seed = 1;
  double ttft_ms = 500, tpot_ms = 40;
  bool json = false;
};

void AddFlags(Flags* flags, SimFlags* f) {
  std::vector<std::string> policies;
  for (const scheduler::PolicyRow& row : scheduler::Policies()) policies.emplace_back(row.name);
  flags->Group("The cluster");
  flags->Add("--model", &f->model, "a shape of models/shapes, or v3");
  flags->Add("--gpu", &f->card, "the card: h200, h100, a100-80, ...");
  flags->Add("--tensor-parallel-size,-tp", &f->tp, 1, 64, "cards of a group");
  flags->Add("--groups", &f->groups, 1, 4096, "groups");
  flags->Add("--max-model-len", &f->context_tokens, 0, 1 << 20, "0: the model's context");
  flags->Add("--max-num-batched-tokens", &f->step_tokens, 0, 1 << 20,
             "rows of a step; 0: what the workers would take");
  flags->Add("--whole-prompts", &f->whole_prompts,
             "no chunks: a step takes whole prompts, beside the decode rows");
  flags->Add("--enable-prefix-caching", &f->prefix_caching, "blocks of equal prefixes are shared");
  flags->AddBytes("--swap-space", &f->swap_bytes, "memory of the host for swapped blocks");
  flags->Add("--tenant-running", &f->tenant_running_max, 0, 1 << 20, "a tenant's limit; 0: none");
  flags->Add("--tenant-queued", &f->tenant_queued_max, 0, 1 << 20, "a tenant's limit; 0: none");
  flags->AddChoice("--policy", &f->policy, std::move(policies), "the order of the queue");
  flags->AddChoice("--placement", &f->placement, {"core", "round-robin"},
                   "core: one scheduler chooses; round-robin: requests go to the groups in turn");
  flags->Add("--max-waiting-requests", &f->waiting_max, 1, 1 << 20, "the queue's limit");
  flags->Add("--overtakes-max", &f->overtakes_max, 0, 1 << 20,
             "admissions before a request that waits for blocks or for the group with its prefix");
  flags->Group("The load");
  flags->AddChoice("--workload", &f->workload,
                   {"sharegpt", "long", "prefix", "agent", "fixed", kCodingWorkload},
                   "lengths and turns, as of fathom bench serve; coding: traffic.h");
  flags->AddChoice("--arrivals", &f->arrivals, {"poisson", "bursty", "even"}, "gaps of arrivals");
  flags->Add("--input-len", &f->input_len, 1, 1 << 20, "of --workload fixed");
  flags->Add("--output-len", &f->output_len, 1, 1 << 20, "of --workload fixed");
  flags->Add("--scale", &f->scale, 0.001, 1000, "all lengths times this");
  flags->Add("--rates", &f->rates, "requests a second, one run for each: 4,8,16");
  flags->Add("--tenants", &f->tenants,
             "tenants, their rates relative to --rates, and their workloads if they differ: "
             "a=1,b=20:long");
  flags->Add("--seconds", &f->seconds, 0.1, 1e6, "requests come for so long");
  flags->Add("--warmup", &f->warmup, 0, 1e6, "of these, not measured");
  flags->Add("--seed", &f->seed, 0, INT64_MAX, "of the load and of the delays");
  flags->Group("Faults");
  flags->Add("--group-loss", &f->group_loss_s, 0, 1e9,
             "seconds between losses of a group; 0: none");
  flags->Add("--router-loss", &f->router_loss_s, 0, 1e9, "likewise of a router");
  flags->Add("--check-every", &f->check_every, 0, 1 << 30,
             "events between checks of the invariants");
  flags->Group("The report");
  flags->Add("--ttft-ms", &f->ttft_ms, 0, 1e9, "objective for the first token");
  flags->Add("--tpot-ms", &f->tpot_ms, 0, 1e9, "objective for each later token");
  flags->Add("--json", &f->json, "a JSON object for each rate, one a line");
}

std::vector<std::string> Split(const std::string& text) {
  std::vector<std::string> parts;
  for (size_t at = 0; at <= text.size();) {
    const size_t end = std::min(text.find(',', at), text.size());
    if (end > at) parts.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  return parts;
}

absl::StatusOr<double> Positive(const std::string& flag, const std::string& text) {
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  if (*end == '\0' && value > 0) return value;
  return Invalid("{}: '{}' is no number above 0", flag, text);
}

absl::StatusOr<std::vector<TenantLoad>> Tenants(const SimFlags& f, double rate) {
  std::vector<TenantLoad> loads;
  for (const std::string& part : Split(f.tenants)) {
    const size_t equals = std::min(part.find('='), part.size() - 1);
    const size_t colon = std::min(part.find(':'), part.size());
    std::string workload = colon < part.size() ? part.substr(colon + 1) : "";
    if (!workload.empty() && workload != kCodingWorkload &&
        std::ranges::find(client::kWorkloads, workload) == std::end(client::kWorkloads)) {
      return Invalid("--tenants: no workload '{}'", workload);
    }
    FATHOM_ASSIGN_OR_RETURN(const double factor,
                            Positive("--tenants", part.substr(equals + 1, colon - equals - 1)));
    loads.push_back({part.substr(0, equals), rate * factor, std::move(workload)});
  }
  return loads;
}

TimedOptions OptionsOf(const SimFlags& f, const SimGroupShape& shape,
                       const std::vector<TenantLoad>& tenants) {
  TimedOptions options;
  options.seed = static_cast<uint64_t>(f.seed);
  options.core = {.policy = f.policy, .waiting_requests_max = f.waiting_max};
  options.core.prefix_caching = f.prefix_caching;
  options.core.overtakes_max = f.overtakes_max;
  if (f.tenant_running_max + f.tenant_queued_max > 0) {
    options.tenants.emplace().defaults = {.running_max = f.tenant_running_max,
                                          .queued_max = f.tenant_queued_max};
  }
  options.core.session_memory_bytes_max = int64_t{64} << 30;
  options.limits = shape.limits;
  if (f.step_tokens > 0) options.limits.step_tokens = f.step_tokens;
  if (f.step_tokens > 0 || f.whole_prompts) options.limits.mixed_step_tokens = 0;
  if (f.whole_prompts) options.limits.step_tokens = options.limits.context_tokens;
  options.limits.protocol = kProtocolMax;
  options.limits.host_blocks =
      static_cast<int32_t>(static_cast<double>(f.swap_bytes) /
                           (options.limits.block_tokens * shape.costs.shape.kv_token_bytes));
  options.costs = shape.costs;
  options.groups = f.groups;
  options.round_robin = f.placement == "round-robin";
  options.traffic = MakeTraffic({.workload = {.name = f.workload,
                                              .input_len = f.input_len,
                                              .output_len = f.output_len,
                                              .scale = f.scale,
                                              .context_tokens = options.limits.context_tokens,
                                              .seed = static_cast<uint64_t>(f.seed)},
                                 .arrivals = f.arrivals == "even"     ? client::Arrivals::kEven
                                             : f.arrivals == "bursty" ? client::Arrivals::kBursty
                                                                      : client::Arrivals::kPoisson,
                                 .tenants = tenants,
                                 .seconds = f.seconds});
  // Long enough for a request that is due last to be answered, if it waits a minute at most.
  options.end_us = static_cast<TimeUs>((f.seconds + 120) * 1e6);
  options.group_loss_us = static_cast<TimeUs>(f.group_loss_s * 1e6);
  options.router_loss_us = static_cast<TimeUs>(f.router_loss_s * 1e6);
  const bool faults = f.group_loss_s > 0 || f.router_loss_s > 0;
  options.faults_until_us = faults ? static_cast<TimeUs>(f.seconds * 1e6) : 0;
  options.check_every_events = f.check_every;
  return options;
}

nlohmann::ordered_json WorldJson(const TimedWorld& world, double rate, int32_t groups) {
  const TimedReport& report = world.report();
  const scheduler::CoreStats stats = world.stats();
  const double seconds = static_cast<double>(report.over_us) / 1e6;
  const auto steps = static_cast<double>(std::max<int64_t>(report.steps, 1));
  return {{"rate", rate},
          {"seconds", seconds},
          {"steps", report.steps},
          {"steps_per_s_of_group", steps / seconds / groups},
          {"step_ms", static_cast<double>(report.busy_us) / steps / 1e3},
          {"decode_rows_of_step", static_cast<double>(report.decode_rows) / steps},
          {"busy_share", static_cast<double>(report.busy_us) / 1e6 / seconds / groups},
          {"core_share", report.core_s / seconds},
          {"core_us_of_step", report.core_s * 1e6 / steps},
          {"core_event_us_max", report.core_event_us_max},
          {"prompt_tokens", report.prompt_tokens},
          {"reused_tokens", report.reused_tokens},
          {"preemptions", stats.preemptions_total},
          {"swaps", stats.swaps_total},
          {"swapped_blocks", report.swapped_blocks},
          {"overtakes", stats.overtakes_total},
          {"replayed_tokens", stats.replayed_tokens_total},
          {"group_losses", report.group_losses},
          {"router_losses", report.router_losses},
          {"wait_s_max", static_cast<double>(report.wait_us_max) / 1e6}};
}

absl::Status RunRate(const SimFlags& f, const SimGroupShape& shape, double rate) {
  FATHOM_ASSIGN_OR_RETURN(const std::vector<TenantLoad> tenants, Tenants(f, rate));
  TimedWorld world(OptionsOf(f, shape, tenants));
  world.Run();
  if (!world.failures().empty()) return Internal("{}", world.failures().front());
  const Objective objective{f.ttft_ms, f.tpot_ms};
  const auto begin_us = static_cast<TimeUs>(f.warmup * 1e6);
  const auto end_us = static_cast<TimeUs>(f.seconds * 1e6);
  std::vector<std::string> names = {""};
  for (const TenantLoad& tenant : tenants) {
    if (tenants.size() > 1) names.push_back(tenant.tenant);
  }
  nlohmann::ordered_json json = WorldJson(world, rate, f.groups);
  if (!f.json) {
    PrintAnswer(
        "rate {:g}: step {:.2f} ms, {:.0f} decode rows, groups busy {:.0f} %, core {:.1f} us a "
        "step "
        "({:.2f} % of a CPU), {} preemptions ({} swaps), {:.0f} % of the prompts reused\n{}\n",
        rate, json["step_ms"].get<double>(), json["decode_rows_of_step"].get<double>(),
        100 * json["busy_share"].get<double>(), json["core_us_of_step"].get<double>(),
        100 * json["core_share"].get<double>(), json["preemptions"].get<uint64_t>(),
        json["swaps"].get<uint64_t>(),
        100.0 * static_cast<double>(world.report().reused_tokens) /
            static_cast<double>(std::max<int64_t>(world.report().prompt_tokens, 1)),
        RowHeads());
  }
  for (const std::string& name : names) {
    const TimedSummary summary = Summarize(world.calls(), name, begin_us, end_us, objective);
    json["tenants"].push_back(ToJson(summary));
    if (!f.json) PrintAnswer("{}\n", ToRow(summary));
  }
  if (f.json) PrintAnswer("{}\n", json.dump());
  return absl::OkStatus();
}

absl::Status RunAll(const SimFlags& f) {
  if (f.warmup >= f.seconds) return Invalid("--warmup {} is not below --seconds", f.warmup);
  FATHOM_ASSIGN_OR_RETURN(const SimGroupShape shape,
                          MakeGroupShape(f.model, f.card, f.tp, f.context_tokens));
  const scheduler::GroupLimits& limits = shape.limits;
  const bool coding = f.workload == kCodingWorkload ||
                      f.tenants.find(std::string(":") + kCodingWorkload) != std::string::npos;
  if (coding && limits.context_tokens < kCodingContextMin) {
    return Invalid(
        "--workload coding needs a context of {} tokens; this one has {} "
        "(--max-model-len, or another --model)",
        kCodingContextMin, limits.context_tokens);
  }
  if (!f.json) {
    PrintAnswer(
        "{} on {} of {}: {} KV tokens, {} slots, steps of {} rows, {} with decode rows; {} groups, "
        "{}, placement {}, seed {}\n",
        f.model, f.tp, f.card, int64_t{limits.blocks - 1} * limits.block_tokens, limits.slots,
        limits.step_tokens, limits.mixed_step_tokens, f.groups, f.policy, f.placement, f.seed);
  }
  for (const std::string& text : Split(f.rates)) {
    FATHOM_ASSIGN_OR_RETURN(const double rate, Positive("--rates", text));
    FATHOM_RETURN_IF_ERROR(RunRate(f, shape, rate));
  }
  return absl::OkStatus();
}

int SimMain(int argc, char** argv) {
  PrepareOutput();
  SimFlags values;
  Flags flags("fathom-sim", "Simulates the scheduler core under load, with the time of GPU steps.");
  AddFlags(&flags, &values);
  if (const std::optional<int> code = flags.Parse(argc, argv)) return *code;
  if (values.model == "7b") values.model = "deepseek-llm-7b";
  if (values.model == "33b") values.model = "deepseek-coder-33b";
  if (const absl::Status status = RunAll(values); !status.ok()) {
    Diagnose("fathom-sim: {}", Message(status));
    return EndAnswer("fathom-sim", 1);
  }
  return EndAnswer("fathom-sim", 0);
}

}  // namespace
}  // namespace fathom::sim

int main(int argc, char** argv) { return fathom::sim::SimMain(argc, argv); }
