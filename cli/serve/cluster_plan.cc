#include "cli/serve/cluster_plan.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <charconv>

#include "common/address.h"

namespace fathom::client {
namespace {

using Pairs = std::vector<std::pair<std::string, std::string>>;

std::vector<std::string> Argv(const ServeOptions& options, const std::string& program,
                              const Pairs& own, const Pairs& handed) {
  std::vector<std::string> argv = {program, "--die-with-parent", std::to_string(options.own_pid)};
  for (const Pairs* pairs : {&own, &handed}) {
    for (const auto& [flag, value] : *pairs) {
      argv.push_back(flag);
      argv.push_back(value);
    }
  }
  return argv;
}

// The highest --rank of a worker.
constexpr int32_t kRankMax = 4095;

// The port of worker `index`, given the first worker's; 0 stays 0 (any free port).
int32_t PortOf(int32_t first, int32_t index) { return first == 0 ? 0 : first + index; }

// The GPU of worker `index`; "": there is none for it.
std::string GpuOf(const ServeOptions& options, int32_t index) {
  if (!options.visible_gpus) return std::to_string(index);
  const auto at = static_cast<size_t>(index);
  return at < options.visible_gpus->size() ? (*options.visible_gpus)[at] : std::string();
}

// The GPUs that worker `index` sees: its own first, since a worker uses the first one, then those
// of the other ranks of its group on this host, whose memory it maps.
std::string GpusOf(const ServeOptions& options, int32_t index) {
  if (options.allow_shared_device) return GpuOf(options, 0);
  const int32_t ranks = options.local_ranks(), first = index / ranks * ranks;
  std::string gpus = GpuOf(options, index);
  for (int32_t other = first; other < first + ranks; ++other) {
    const std::string gpu = other == index ? std::string() : GpuOf(options, other);
    if (!gpu.empty() && !gpus.empty()) gpus += "," + gpu;
  }
  return gpus;
}

// Mutual TLS between the processes, each with the certificate of its role.
void AddClusterTls(const ServeOptions& options, const std::string& role, ChildSpec* spec) {
  if (options.cluster_certs.empty()) return;
  const std::string stem = fmt::format("{}/{}", options.cluster_certs, role);
  spec->argv.insert(spec->argv.end(),
                    {"--cluster-cert", stem + ".crt", "--cluster-key", stem + ".key",
                     "--cluster-ca", options.cluster_certs + "/ca.crt"});
}

// Router and workers must read the same configuration.
void AddOverrides(const ServeOptions& options, ChildSpec* spec) {
  if (options.hf_overrides.empty()) return;
  spec->argv.insert(spec->argv.end(), {"--hf-overrides", options.hf_overrides});
}

}  // namespace

std::string SchedulerAddress(const ServeOptions& options, int32_t port) {
  return FormatHostPort(DialHost(options.scheduler_host), port);
}

absl::Status CheckOptions(const ServeOptions& options) {
  FATHOM_RETURN_IF_ERROR(CheckGroupShape(options.shape()));
  if (options.shape().ranks() % options.nodes != 0) {
    return Invalid(
        "--nnodes {}: the {} ranks of a group (-tp {} times -pp {}) cannot be divided equally; "
        "give "
        "a divisor of {}",
        options.nodes, options.shape().ranks(), options.tp, options.pp, options.shape().ranks());
  }
  if (options.nodes > 1 && options.device == "cpu") {
    return Invalid(
        "--nnodes {} with --device cpu: the ranks of a group on the CPU share memory, so they are "
        "on one host; use --nnodes 1, or --device cuda",
        options.nodes);
  }
  if (options.device == "cuda" && options.visible_gpus && !options.allow_shared_device &&
      std::ssize(*options.visible_gpus) < options.workers()) {
    return Invalid("{} workers with --device cuda need a GPU each; CUDA_VISIBLE_DEVICES names {}",
                   options.workers(), options.visible_gpus->size());
  }
  for (const auto& [flag, first] :
       Pairs{{"--worker-port", std::to_string(options.worker_port)},
             {"--worker-metrics-port", std::to_string(options.worker_metrics_port)}}) {
    if (std::stoi(first) + options.workers() - 1 <= 65535) continue;
    return Invalid("{} {}: with {} workers the last port is above 65535; give a lower one", flag,
                   first, options.workers());
  }
  return absl::OkStatus();
}

absl::Status CheckAccess(const ServeOptions& options) {
  if (options.tls.cert.empty() != options.tls.key.empty()) {
    return Invalid("--tls-cert '{}', --tls-key '{}': give both, or none of them", options.tls.cert,
                   options.tls.key);
  }
  if (options.edge && options.tls.on()) {
    return Invalid(
        "--edge with --tls-cert: HAProxy ends TLS then, with a certificate in its own "
        "configuration (deploy/haproxy.cfg); leave out one of the two");
  }
  if (!options.api_keys.empty() || options.allow_unauthenticated || IsLoopback(options.host)) {
    return absl::OkStatus();
  }
  return Invalid(
      "--host {} is an address of other machines, and without --api-keys everybody who reaches it "
      "may use the model; give --api-keys FILE (`fathom keys new` makes one), or say "
      "--allow-unauthenticated if the network keeps others away",
      options.host);
}

HostNeeds ServeNeeds(int32_t workers) {
  // Measured, with some reserve. A child has two pipes, a pidfd and a log; at a start all of them.
  const int64_t children = int64_t{workers} + 2;
  return {.descriptors = 24 + 8 * children,
          .address_space_bytes = int64_t{512} << 20,
          .threads = 8 + 20 * children};
}

absl::StatusOr<int32_t> GroupNumber(std::string_view text) {
  const size_t dash = text.rfind('-');
  const std::string_view digits = dash == std::string_view::npos ? text : text.substr(dash + 1);
  int32_t group = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), group);
  if (error != std::errc() || end != digits.data() + digits.size() || group < 0) {
    return Invalid(
        "--group '{}': give the number of the group, from 0, or a name that ends with it, like the "
        "name chat-worker-3 of a pod",
        text);
  }
  return group;
}

absl::Status PlaceGroup(int32_t group, int32_t node_rank, ServeOptions* options) {
  if (node_rank < 0 || node_rank >= options->nodes) {
    return Invalid("--node-rank {}: with --nnodes {} it is from 0 to {}", node_rank, options->nodes,
                   options->nodes - 1);
  }
  const int32_t ranks = options->shape().ranks();
  const int32_t groups_max = (kRankMax + 1) / ranks;
  if (group >= groups_max) {
    return Invalid("--group {}: groups of {} ranks are numbered from 0 to {}", group, ranks,
                   groups_max - 1);
  }
  options->first_rank = group * ranks + node_rank * options->local_ranks();
  return absl::OkStatus();
}

std::string RunDirName(const ServeOptions& options) {
  // Letters, digits, '.' and '-' are kept; other characters (of ::1, for example) become '_'.
  std::string host = BareHost(options.host);
  for (char& c : host) {
    const bool plain = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                       c == '.' || c == '-';
    if (!plain) c = '_';
  }
  return fmt::format("fathom-{}-{}", host, options.grpc_port);
}

ChildSpec SchedulerSpec(const ServeOptions& options, const std::string& bin_dir) {
  ChildSpec spec;
  spec.name = "scheduler";
  spec.argv = Argv(options, bin_dir + "/fathom-scheduler",
                   {{"--host", options.scheduler_host},
                    {"--term-file", options.run_dir + "/term"},
                    {"--log-level", options.log_level},
                    {"--log-format", options.log_format}},
                   options.scheduler_flags);
  spec.argv.insert(spec.argv.end(), options.scheduler_switches.begin(),
                   options.scheduler_switches.end());
  spec.ports = {{"port", {"--port", options.scheduler_port}},
                {"metrics_port", {"--metrics-port", options.scheduler_metrics_port}}};
  AddClusterTls(options, "scheduler", &spec);
  spec.stop_stage = kStopScheduler;
  return spec;
}

ChildSpec WorkerSpec(const ServeOptions& options, const std::string& bin_dir,
                     int32_t scheduler_port, int32_t index) {
  ChildSpec spec;
  spec.name = fmt::format("worker-{}", index);
  spec.argv = Argv(options, bin_dir + "/fathom-worker",
                   {{"--model", options.model},
                    {"--device", options.device},
                    {"--tensor-parallel-size", std::to_string(options.tp)},
                    {"--pipeline-parallel-size", std::to_string(options.pp)},
                    {"--rank", std::to_string(options.first_rank + index)},
                    {"--local-workers", std::to_string(options.workers())},
                    {"--drain-timeout", std::to_string(options.drain_timeout_s)},
                    {"--scheduler", options.schedulers.empty()
                                        ? SchedulerAddress(options, scheduler_port)
                                        : fmt::format("{}", fmt::join(options.schedulers, ","))},
                    {"--host", options.worker_host},
                    {"--log-level", options.log_level},
                    {"--log-format", options.log_format}},
                   options.worker_flags);
  AddOverrides(options, &spec);
  if (options.nccl_debug != "off") {
    spec.argv.insert(spec.argv.end(), {"--nccl-debug", options.nccl_debug, "--nccl-debug-file",
                                       fmt::format("{}/{}.nccl.log", options.run_dir, spec.name)});
  }
  spec.argv.insert(spec.argv.end(), options.worker_switches.begin(), options.worker_switches.end());
  if (options.device != "cpu" && options.workers() > 1) {
    spec.environment["CUDA_VISIBLE_DEVICES"] = GpusOf(options, index);
  }
  spec.ports = {{"port", {"--port", PortOf(options.worker_port, index)}},
                {"metrics_port", {"--metrics-port", PortOf(options.worker_metrics_port, index)}}};
  AddClusterTls(options, "worker", &spec);
  spec.ready_phase = "register";
  spec.stop_stage = kStopWorkers;
  return spec;
}

ChildSpec RouterSpec(const ServeOptions& options, const std::string& bin_dir,
                     int32_t scheduler_port) {
  ChildSpec spec;
  spec.name = "router";
  spec.argv = Argv(options, bin_dir + "/fathom-router",
                   {{"--model", options.model},
                    {"--scheduler", SchedulerAddress(options, scheduler_port)},
                    {"--host", options.edge ? kInsideHost : options.host},
                    {"--drain-timeout", std::to_string(options.drain_timeout_s)},
                    {"--log-level", options.log_level},
                    {"--log-format", options.log_format}},
                   options.router_flags);
  if (options.edge) spec.argv.emplace_back("--behind-proxy");
  for (const std::string& file : options.api_keys) {
    spec.argv.insert(spec.argv.end(), {"--api-keys", file});
  }
  if (options.allow_unauthenticated) spec.argv.emplace_back("--allow-unauthenticated");
  if (options.tls.on()) {
    spec.argv.insert(spec.argv.end(),
                     {"--tls-cert", options.tls.cert, "--tls-key", options.tls.key});
  }
  AddClusterTls(options, "router", &spec);
  AddOverrides(options, &spec);
  const std::pair<const char*, const std::string&> texts[] = {
      {"--chat-template", options.chat_template},
      {"--reasoning-parser", options.reasoning_parser},
      {"--tool-call-parser", options.tool_call_parser}};
  for (const auto& [flag, value] : texts) {
    if (!value.empty()) spec.argv.insert(spec.argv.end(), {flag, value});
  }
  spec.ports = {{"grpc_port", {"--grpc-port", options.edge ? 0 : options.grpc_port}},
                {"http_port", {"--http-port", options.http_port}}};
  spec.stop_stage = kStopRouter;
  return spec;
}

ChildSpec EdgeSpec(const ServeOptions& options, const std::string& bin_dir, int32_t router_port) {
  ChildSpec spec;
  spec.name = "edge";
  spec.argv = {bin_dir + "/fathom",
               "edge",
               "--die-with-parent",
               std::to_string(options.own_pid),
               "--router",
               FormatHostPort(kInsideHost, router_port),
               "--host",
               options.host};
  spec.ports = {{"grpc_port", {"--grpc-port", options.grpc_port}}};
  spec.stop_stage = kStopEdge;  // After the router, whose streams drain through it.
  return spec;
}

}  // namespace fathom::client
