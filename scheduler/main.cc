// fathom-scheduler: decides every batch and owns every KV block; routers and workers dial it. This
// file only connects the parts.
#include <thread>

#include "common/check.h"
#include "common/flags.h"
#include "common/host_limits.h"
#include "common/log.h"
#include "common/machine.h"
#include "common/metrics.h"
#include "common/output.h"
#include "common/process.h"
#include "common/self_dial.h"
#include "common/server_process.h"
#include "http/process_routes.h"
#include "scheduler/core/policy.h"
#include "scheduler/driver.h"
#include "scheduler/recorder/file_recorder.h"
#include "scheduler/tenant_file.h"
#include "scheduler/transport/grpc_transport.h"

namespace fathom::scheduler {
namespace {

// Measured on an idle scheduler (docs/OPERATIONS.md, "Limits of the system"), plus a few
// connections.
constexpr HostNeeds kNeeds{
    .descriptors = 48, .address_space_bytes = int64_t{1} << 30, .threads = 24};

struct Settings {
  std::string host = "127.0.0.1";
  int32_t port = 8003;
  int32_t metrics_port = 8002;
  std::string term_file;
  std::string record_events;
  std::string tenant_limits;
  TlsFiles cluster_tls;
  ProcessOptions process;
  DriverOptions driver;
  // In the units of their flags.
  int64_t heartbeat_timeout_ms = driver.groups.heartbeat_silence_us / 1000;
  int64_t stall_timeout_ms = driver.groups.stall_us / 1000;
  int64_t device_stall_timeout_ms = driver.groups.device_stall_us / 1000;
  int64_t load_timeout_s = driver.groups.loading_us / 1'000'000;
  int64_t connect_timeout_s = driver.groups.connecting_us / 1'000'000;
  int64_t drain_ms = driver.drain_us / 1000;
  int64_t log_interval_s = driver.log_stats_us / 1'000'000;
  bool disable_log_stats = false;
  int64_t model_wait_s = driver.core.model_wait_us / 1'000'000;
};

std::optional<int> Parse(int argc, char** argv, Settings* settings) {
  CoreOptions& core = settings->driver.core;
  Flags flags("fathom-scheduler",
              "Decides every batch of a Fathom cluster; routers and workers dial it.");
  flags.Group("Addresses");
  flags.Add("--host", &settings->host, "Address to listen on.");
  flags.AddPort("--port", &settings->port, "gRPC port for routers and workers; 0: any free one.");
  flags.AddPort("--metrics-port", &settings->metrics_port,
                "Port of HTTP: /health, /metrics, /version; 0: any free one.");
  flags.Group("Leadership");
  flags.Add(
      "--term-file", &settings->term_file,
      "File that numbers this scheduler's lives, so that one that is restarted has a higher term. "
      "Without it terms start from 1.");
  flags.Group("Scheduling");
  std::vector<std::string> policies;
  for (const PolicyRow& policy : Policies()) {
    policies.emplace_back(policy.name);
    if (!policy.old_name.empty()) policies.emplace_back(policy.old_name);
  }
  flags.AddChoice("--scheduling-policy,--policy", &core.policy, policies,
                  "Which request is admitted next");
  flags.Add("--tenant-limits", &settings->tenant_limits,
            "YAML file with the shares and limits of tenants; it is read again when it changes.");
  flags.Add("--overtakes-max", &core.overtakes_max, 0, 1 << 20,
            "So many requests may be admitted before one that waits for KV blocks.");
  flags.Add("--enable-prefix-caching", &core.prefix_caching,
            "Prompts that begin alike share the KV blocks of their common beginning.");
  flags.Add("--prefix-caching-across-tenants", &core.prefixes_across_tenants,
            "Share them between tenants too. A client can then learn from the time to the first "
            "token that another tenant sent the same text.");
  flags.Add("--waiting-requests-max", &core.waiting_requests_max, 1, 1 << 24,
            "New requests beyond so many waiting ones are refused.");
  flags.Add("--waiting-tokens-max", &core.waiting_tokens_max, 1, int64_t{1} << 40,
            "Likewise, their prompt tokens.");
  flags.AddBytes("--session-memory", &core.session_memory_bytes_max, "Memory for session records.");
  flags.Add("--model-wait", &settings->model_wait_s, 0, 86'400,
            "Seconds that an answer waits for groups of its model to come back while another model "
            "is served, or for its kind of device; then it ends with MODEL_CHANGED, or goes on.");
  flags.Group("Failure detection");
  flags.Add("--heartbeat-timeout-ms", &settings->heartbeat_timeout_ms, 500, 600'000,
            "A router or worker that is silent for so long is taken for dead.");
  flags.Add("--stall-timeout-ms", &settings->stall_timeout_ms, 500, 3'600'000,
            "A rank without progress inside a step for so long is taken for dead.");
  flags.Add("--device-stall-timeout-ms", &settings->device_stall_timeout_ms, 500, 3'600'000,
            "The same for a GPU that shares its layers with others.");
  flags.Add("--load-timeout-s", &settings->load_timeout_s, 1, 86'400,
            "Longest time a rank may load weights.");
  flags.Add("--connect-timeout-s", &settings->connect_timeout_s, 1, 3'600,
            "Longest time the ranks of a group may take to connect.");
  flags.Add("--drain-ms", &settings->drain_ms, 0, 600'000,
            "Longest wait for steps in flight after SIGTERM.");
  AddClusterTlsFlags(&settings->cluster_tls, &flags);
  flags.Group("Process");
  flags.Add("--record-events", &settings->record_events,
            "File for every event of the scheduler core, for fathom replay. It has prompts and "
            "answers as token ids. One that is there is renamed to FILE.1.");
  flags.Add("--log-interval", &settings->log_interval_s, 0, 86'400,
            "Seconds between two summaries in the log, which are left out when nothing runs; 0: "
            "none.");
  flags.Add("--disable-log-stats", &settings->disable_log_stats, "As --log-interval 0.");
  AddProcessFlags(&settings->process, &flags);
  return flags.Parse(argc, argv);
}

// The options that flags have in other units.
void SetUnits(Settings* settings) {
  DriverOptions& options = settings->driver;
  options.process_id = RandomId();
  options.build = BuildVersion();
  options.core.model_wait_us = settings->model_wait_s * 1'000'000;
  options.drain_us = settings->drain_ms * 1000;
  options.log_stats_us = settings->disable_log_stats ? 0 : settings->log_interval_s * 1'000'000;
  options.groups.heartbeat_silence_us = settings->heartbeat_timeout_ms * 1000;
  options.groups.stall_us = settings->stall_timeout_ms * 1000;
  options.groups.device_stall_us = settings->device_stall_timeout_ms * 1000;
  options.groups.loading_us = settings->load_timeout_s * 1'000'000;
  options.groups.connecting_us = settings->connect_timeout_s * 1'000'000;
}

// A file that is wrong changes nothing: the shares and limits before it stay.
void Reload(TenantFile* file, Driver* driver) {
  auto table = file->Poll();
  if (!table) return;
  if (!table->ok()) {
    return LogWarn("--tenant-limits: the file has changed and is not taken: {}",
                   Message(table->status()));
  }
  LogInfo("--tenant-limits: the file has changed; it names {} tenants", (*table)->tenants.size());
  if (!driver->SetTenants(*std::move(*table))) LogWarn("--tenant-limits: the driver is busy");
}

// Ends the driver at a signal. Signals have a thread of their own, because the driver thread waits
// only for its queue. `file`, if not null, and the certificates are looked at each second.
void Watch(const std::atomic<bool>* over, TenantFile* file, LiveTlsFiles* tls, Driver* driver) {
  for (int turn = 0; !*over; ++turn) {
    if (turn % 10 == 9) ReloadTls(tls);
    if (file != nullptr && turn % 10 == 9) Reload(file, driver);
    if (!WaitForStopSignal(100)) continue;
    driver->Stop();
    return;  // A second signal ends the process.
  }
}

int Main(int argc, char** argv) {
  StartServer("scheduler");
  Settings settings;
  if (const std::optional<int> code = Parse(argc, argv, &settings)) return *code;
  ApplyProcessOptions(settings.process);
  if (const auto status = CheckHostLimits(kNeeds, TakeHostLimits()); !status.ok()) {
    return EndServer(kExitResources, status);
  }
  DriverOptions& options = settings.driver;
  SetUnits(&settings);

  const auto tls = OpenClusterTls(settings.cluster_tls, kSchedulerName);
  if (!tls.ok()) return EndServer(kExitUsage, tls.status());
  WarnIfOpen(settings.cluster_tls, settings.host);
  TenantFile tenants(settings.tenant_limits);
  absl::StatusOr<TenantTable> table = TenantTable();
  if (!settings.tenant_limits.empty()) table = tenants.Read();
  if (!table.ok()) return EndServer(kExitUsage, table.status());

  const std::unique_ptr<TermStore> terms =
      settings.term_file.empty() ? MakeMemoryTermStore() : MakeFileTermStore(settings.term_file);
  const absl::StatusOr<TermId> term = terms->Take(TermId{0});
  if (!term.ok()) return EndServer(kExitUnavailable, term.status());

  auto grpc = Listener::Bind(settings.host, settings.port, "--port");
  if (!grpc.ok()) return EndServer(ExitCodeOfBind(grpc.status()), grpc.status());
  auto http = Listener::Bind(settings.host, settings.metrics_port, "--metrics-port");
  if (!http.ok()) return EndServer(ExitCodeOfBind(http.status()), http.status());
  const int port = grpc->port(), metrics_port = http->port();
  const SelfDial self({{"--port", settings.host, port, OwnPort::Http2(settings.cluster_tls.on())},
                       {"--metrics-port", settings.host, metrics_port, OwnPort::Speaks::kHttp1}});
  std::unique_ptr<FileRecorder> recorder;
  if (!settings.record_events.empty()) {
    auto file = FileRecorder::Create(settings.record_events, {options.build, options.core});
    if (!file.ok()) {
      return EndServer(absl::IsInvalidArgument(file.status()) ? kExitUsage : kExitUnavailable,
                       file.status());
    }
    recorder = *std::move(file);
  }
  RealClock clock;
  Metrics metrics("scheduler");
  DriverMetrics driver_metrics(&metrics);
  auto transport = GrpcTransport::Serve(*std::move(grpc), {}, &clock, (*tls)->files());
  if (!transport.ok()) return EndServer(kExitUnavailable, transport.status());
  Driver driver(options, *term, &clock, transport->get(), terms.get(), &driver_metrics,
                recorder.get());
  driver.events().DumpOnFailedCheck();
  // The first table is taken before the first request, and nothing else fills the inbox yet.
  if (!settings.tenant_limits.empty()) {
    FATHOM_CHECK(driver.SetTenants(*std::move(table)), "the inbox of tenants is full");
  }
  const auto web = http::ServeProcess(*std::move(http), "scheduler", &metrics,
                                      {.live = http::LiveBy(&self, &driver.loop()),
                                       .ready = [&driver] { return driver.Ready(); },
                                       .progress = {}});
  RecordPhase("start", ProcessAgeUs());
  PrintListening("scheduler", {{"port", port}, {"metrics_port", metrics_port}});
  std::atomic<bool> over = false;
  std::thread signals([&] {
    Watch(&over, settings.tenant_limits.empty() ? nullptr : &tenants, tls->get(), &driver);
  });
  const absl::Status end = driver.Run();
  over = true;
  signals.join();
  SetCheckFailedHook(nullptr, nullptr);
  if (!end.ok()) return EndServer(kExitUnavailable, end);
  return EndServer();
}

}  // namespace
}  // namespace fathom::scheduler

int main(int argc, char** argv) { return fathom::scheduler::Main(argc, argv); }
