#include <fmt/format.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "cli/accept/accept_run.h"
#include "cli/commands.h"
#include "cli/plan/roofline.h"
#include "common/address.h"
#include "common/output.h"
#include "modeling/architectures/architecture.h"
#include "modeling/layout/gpu_cards.h"

namespace fathom::client {
namespace {

constexpr int kVersionTimeoutMs = 2000;

constexpr int kExitRefused = 1;
// A small server's CPU; --read-tbs and --matrix-tflops say better.
constexpr CardLimits kPlainCpu{.read_tbs = 0.02, .matrix_tflops = 0.1};
constexpr int32_t kRouterHttpPort = 8000, kSchedulerHttpPort = 8002, kWorkerHttpPort = 8110;
constexpr double kFirstFloorSteps = 10;

struct AcceptFlags {
  AcceptOptions run;
  LatencyLimits limits;
  ServerFlag server;
  std::string model, gpu, out, processes;
  CardLimits card;
  int32_t tp = 1;
  double floor_ms = 0, first_floor_ms = 0;
  bool json = false;
};

void AddAcceptFlags(Flags& flags, AcceptFlags* o) {
  o->server.Add(flags);
  flags.Add("--processes", &o->processes,
            "HTTP HOST:PORT of each process, with commas, asked for /version; each must answer "
            "(default: 8000, 8002, 8110... of the router's host, as far as they answer)");
  flags.Group("Load");
  flags.Add("--requests", &o->run.requests, 1, 100'000, "First requests whose latency is judged");
  flags.Add("--concurrency", &o->run.concurrency, 1, 1024, "How many of them at once");
  flags.Add("--input-len", &o->run.input_len, 1, 1 << 20, "Tokens of each prompt");
  flags.Add("--output-len", &o->run.output_len, 1, 1 << 20, "Tokens of each answer");
  flags.Add("--stress-requests", &o->run.stress_requests, 1, 100'000, "Of the stress run");
  flags.Add("--stress-concurrency", &o->run.stress_concurrency, 1, 1024, "How many at once");
  flags.Add("--seed", &o->run.seed, 0, INT32_MAX, "Of the prompts");
  flags.Group("Floors");
  flags.Add("--model", &o->model, "Model folder or config.json: the floors are the plan's");
  flags.Add("--gpu", &o->gpu,
            "Its card: " + GpuCardNames() +
                " (default: what the workers name; a cluster on the CPU: a small server's rates)");
  flags.Add("--read-tbs", &o->card.read_tbs, 0, 1e4, "In place of the card's bandwidth, 1e12 B/s");
  flags.Add("--matrix-tflops", &o->card.matrix_tflops, 0, 1e6, "In place of the card's bf16 rate");
  flags.Add("--tensor-parallel-size,-tp", &o->tp, 1, 64, "Ranks that share the work of a step");
  flags.Add("--floor-ms", &o->floor_ms, 0, 1e9, "Floor of a gap between two tokens");
  flags.Add("--first-floor-ms", &o->first_floor_ms, 0, 1e9,
            "Floor of the first token (with --floor-ms: ten times that)");
  flags.Add("--factor", &o->limits.factor, 1, 1e9, "The median may be so many floors");
  flags.Add("--tail-factor", &o->limits.tail_factor, 1, 1e9, "And p99 so many");
  flags.Group("Output");
  flags.Add("--out", &o->out, "Folder for accept.txt, accept.json and accept.html");
  flags.Add("--json", &o->json, "Print the JSON object instead of the text");
}

// The card whose rates the floors use: that of --gpu, else the one that the workers compute on.
// Null: neither is in the table.
const GpuCard* CardOf(const AcceptFlags& o, const std::string& worker_card) {
  return o.gpu.empty() ? GpuCardOfDevice(worker_card) : FindGpuCard(o.gpu);
}

// `worker_card`: the name of the workers' GPU; empty: they compute on CPUs.
absl::Status SetFloors(const AcceptFlags& o, const Model& model, const std::string& worker_card,
                       int32_t input_len, int32_t output_len, LatencyLimits* limits) {
  if (o.floor_ms > 0 || o.first_floor_ms > 0) {
    limits->step_floor_ms = o.floor_ms;
    limits->first_floor_ms =
        o.first_floor_ms > 0 ? o.first_floor_ms : kFirstFloorSteps * o.floor_ms;
    limits->source = "--floor-ms";
    return absl::OkStatus();
  }
  if (o.model.empty()) return absl::OkStatus();
  const bool on_cpu = model.device == "cpu";
  const GpuCard* const known = CardOf(o, worker_card);
  const bool rates = o.card.read_tbs > 0 && o.card.matrix_tflops > 0;
  if (known == nullptr && !o.gpu.empty()) {
    return Invalid("--gpu '{}': not in the table of cards; it is one of {}", o.gpu, GpuCardNames());
  }
  if (!on_cpu && known == nullptr && !rates) {
    return Invalid(
        "the cluster computes on {}, a card of which the rates are not known; give its --read-tbs "
        "and --matrix-tflops, or name a similar one with --gpu ({})",
        worker_card.empty() ? model.device : "'" + worker_card + "'", GpuCardNames());
  }
  CardLimits card = kPlainCpu;
  if (known != nullptr) card = {known->read_tbs, known->matrix_tflops};
  if (o.card.read_tbs > 0) card.read_tbs = o.card.read_tbs;
  if (o.card.matrix_tflops > 0) card.matrix_tflops = o.card.matrix_tflops;
  FATHOM_ASSIGN_OR_RETURN(const auto config, ReadModelConfig(o.model));
  const ModelSpec spec = SpecOf(config);
  const int32_t ranks = o.tp, rows = o.run.concurrency;
  const double step_ms = StepFloorMs(spec, card, rows, input_len + output_len / 2.0) / ranks;
  limits->step_floor_ms = step_ms + (on_cpu ? 0 : RankSumsMs(spec, ranks, rows));
  limits->first_floor_ms = PrefillFloorMs(spec, card, input_len) / ranks;
  limits->source = fmt::format("{} on {} ({} TB/s, {} TFLOP/s), -tp {}", o.model,
                               known != nullptr ? known->name : model.device, card.read_tbs,
                               card.matrix_tflops, o.tp);
  return absl::OkStatus();
}

absl::Status WriteReports(const std::string& folder, const AcceptReport& report) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  const std::pair<const char*, std::string> files[] = {
      {"accept.txt", ToText(report)},
      {"accept.json", ToJson(report).dump() + "\n"},
      {"accept.html", ToHtml(report)}};
  for (const auto& [name, text] : files) {
    const std::filesystem::path path = std::filesystem::path(folder) / name;
    std::ofstream file(path, std::ios::binary);
    file << text;
    file.close();
    if (!file) return Invalid("--out {}: {} cannot be written", folder, path.string());
  }
  return absl::OkStatus();
}

// Where the processes of `fathom serve` listen by default, beside the router.
std::vector<std::string> DefaultProcesses(const std::string& server, size_t ranks) {
  const auto place = ParseHostPort(server);
  if (!place.ok()) return {};
  std::vector<std::string> addresses = {FormatHostPort(place->host, kRouterHttpPort),
                                        FormatHostPort(place->host, kSchedulerHttpPort)};
  for (size_t i = 0; i < ranks; ++i) {
    addresses.push_back(FormatHostPort(place->host, kWorkerHttpPort + static_cast<int32_t>(i)));
  }
  return addresses;
}

// The status, as soon as the cluster is ready and its ranks are known, which is a heartbeat after
// the end of its start; after a while the last one.
absl::StatusOr<ClusterStatus> SettledStatus(Client& client) {
  constexpr int kLooks = 30;
  auto status = client.GetStatus(/*deadline_ms=*/5000);
  for (int i = 0; i < kLooks && status.ok() && status->ranks.empty(); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    status = client.GetStatus(/*deadline_ms=*/5000);
  }
  return status;
}

// The exit code of a cluster that could not be judged.
int NoCluster(const absl::Status& status) {
  Fail("accept", status);
  return absl::IsInvalidArgument(status) ? kExitUsage : kExitUnavailable;
}

}  // namespace

int RunAccept(int argc, const char* const* argv) {
  Flags flags("fathom accept",
              "The checklist after a rollout: versions, equalities, a stress run, and the latency "
              "of the first requests against the plan's floor. Exit 0: accepted, 1: refused, 69: "
              "no cluster.");
  AcceptFlags o;
  AddAcceptFlags(flags, &o);
  if (const auto code = flags.Parse(argc, argv)) return *code;
  const auto client = o.server.Dial();
  if (!client.ok()) return NoCluster(client.status());
  o.run.server = SplitCommas(o.server.servers).front();
  o.run.processes_given = !o.processes.empty();
  o.run.call = {.timeout_ms = kVersionTimeoutMs,
                .stopped = {},
                .api_key = o.server.api_key,
                .tls = o.server.has_tls(),
                .tls_ca = o.server.tls_files.ca};
  const auto status = SettledStatus(**client);
  if (!status.ok()) return NoCluster(status.status());
  o.run.processes = o.run.processes_given ? SplitCommas(o.processes)
                                          : DefaultProcesses(o.run.server, status->ranks.size());
  const auto model = (*client)->GetModel();
  if (!model.ok()) return NoCluster(model.status());
  // Before the load: a wrong flag ends at once.
  LatencyLimits limits = o.limits;
  const std::string card = status->ranks.empty() ? "" : status->ranks.front().card;
  if (const auto set = SetFloors(o, *model, card, o.run.input_len, o.run.output_len, &limits);
      !set.ok()) {
    return Fail("accept", set);
  }
  const RealClock clock;
  auto run = RunAcceptance(**client, o.run, clock);
  if (!run.ok()) return NoCluster(run.status());
  limits = o.limits;  // Again, for the lengths that the context allows.
  if (const auto set = SetFloors(o, run->model, card, run->input_len, run->output_len, &limits);
      !set.ok()) {
    return Fail("accept", set);
  }
  AcceptReport report{.run = *std::move(run), .limits = limits};
  report.checks = Judge(report.run, report.limits);
  PrintAnswer("{}", o.json ? ToJson(report).dump() + "\n" : ToText(report));
  if (!o.out.empty()) {
    if (const auto written = WriteReports(o.out, report); !written.ok()) {
      return Fail("accept", written);
    }
  }
  return Passed(report.checks) ? kExitOk : kExitRefused;
}

}  // namespace fathom::client
