#include "cli/commands.h"
#include "cli/serve/worker_flags.h"
#include "cli/serve/workers.h"
#include "common/address.h"
#include "common/process.h"
#include "common/server_process.h"

namespace fathom::client {

int RunWorkers(int argc, const char* const* argv) {
  BlockStopSignals();
  RaiseDescriptorLimit();
  const RealClock clock;
  ServeOptions options{.schedulers = {"127.0.0.1:8003"}};
  std::string group = "0", host_id;
  int32_t node_rank = 0;
  WorkerFlags workers;
  Flags flags("fathom workers",
              "Starts, watches and stops the workers of one group, for a scheduler elsewhere.");
  workers.AddTo(flags, &options);
  flags.Group("Cluster");
  flags.Add("--scheduler", &options.schedulers,
            "host:port of a scheduler; once for each one, or separated by commas");
  flags.Add("--group", &group,
            "Number of the group, from 0, or a name that ends with it (a pod's: chat-worker-3)");
  flags.Add("--nnodes", &options.nodes, 1, 64, "Hosts that share the group's ranks equally");
  flags.Add("--node-rank", &node_rank, 0, 63, "Number of this host among them");
  flags.Add("--host-id", &host_id,
            "What tells this host from others; empty: the kernel's boot id. In a pod: its name");
  flags.Group("Network");
  flags.Add("--host", &options.worker_host, "Address that the workers listen on");
  flags.Add("--worker-port", &options.worker_port, 0, 65535,
            "Health of the first worker, the next has port + 1; 0: any free ones");
  flags.Add("--worker-metrics-port", &options.worker_metrics_port, 0, 65535,
            "Metrics and HTTP health of the first worker, the next has port + 1; 0: any free ones");
  TlsFiles cluster_tls;
  AddClusterTlsFlags(&cluster_tls, &flags);
  flags.Group("Process");
  flags.Add("--run-dir", &options.run_dir, "Logs (default: of this user and port)");
  flags.Add("--restart-after-s", &options.restart_after_s, 0, 86400,
            "A worker that does not answer, or whose step stands still, for so long is started "
            "again; 0: never");
  flags.Add("--drain-timeout-s", &options.drain_timeout_s, 0, 3600,
            "How long sequences that no other group can take may still run after SIGTERM");
  AddLogFlags(&options.log_level, &options.log_format, &flags);
  flags.Add("--verbose", &options.verbose, "Logs also to stderr");
  if (const auto code = flags.Parse(argc, argv)) return *code;
  absl::Status status = workers.HandOver(&options);
  if (status.ok()) status = CheckOptions(options);
  if (status.ok()) status = OpenClusterTls(cluster_tls, kWorkerName).status();
  if (!status.ok()) return Fail("workers", status);
  if (cluster_tls.on()) {
    options.worker_flags.emplace_back("--cluster-cert", cluster_tls.cert);
    options.worker_flags.emplace_back("--cluster-key", cluster_tls.key);
    options.worker_flags.emplace_back("--cluster-ca", cluster_tls.ca);
  }
  auto schedulers = ParseAddresses("--scheduler", options.schedulers);
  if (!schedulers.ok()) return Fail("workers", schedulers.status());
  options.schedulers = *std::move(schedulers);
  const auto number = GroupNumber(group);
  if (!number.ok()) return Fail("workers", number.status());
  status = PlaceGroup(*number, node_rank, &options);
  if (!status.ok()) return Fail("workers", status);
  if (!host_id.empty()) options.worker_flags.emplace_back("--host-id", host_id);
  return Workers(std::move(options), clock);
}

}  // namespace fathom::client
