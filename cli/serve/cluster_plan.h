// cli/serve/cluster_plan.h: the processes of `fathom serve` and their flags. Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cli/serve/child_spec.h"
#include "common/group_shape.h"
#include "common/host_limits.h"
#include "common/status.h"
#include "common/tls_files.h"

namespace fathom::client {

// The address of scheduler and workers: the traffic inside the cluster stays on this machine,
// unless
// --scheduler-host lets workers of other hosts in.
inline constexpr char kInsideHost[] = "127.0.0.1";

struct ServeOptions {
  std::string model;
  std::string hf_overrides;   // Passed to router and workers.
  std::string chat_template;  // Passed to the router, as the next two.
  std::string reasoning_parser;
  std::string tool_call_parser;
  std::string device = "auto";
  int32_t tp = 1;
  int32_t pp = 1;
  int32_t dp = 1;
  std::string host = "127.0.0.1";
  std::string scheduler_host = kInsideHost;
  int32_t http_port = 8000;
  int32_t grpc_port = 8001;
  int32_t scheduler_metrics_port = 8002;
  int32_t scheduler_port = 8003;
  int32_t worker_port = 8010;          // Worker i has worker_port + i; 0: any free port for each.
  int32_t worker_metrics_port = 8110;  // The same rule.
  std::string log_level = "info";
  std::string log_format = "auto";
  std::string run_dir;
  bool edge = false;    // HAProxy has grpc_port, and the router has any free port behind it.
  int32_t own_pid = 0;  // The process that starts the others.
  bool json = false;
  bool verbose = false;
  int32_t start_timeout_s = 1800;
  int32_t drain_timeout_s = 30;
  std::string nccl_debug =
      "off";  // Each worker's NCCL writes to worker-I.nccl.log in the run directory.
  // Flags and values that are passed to the process unchanged.
  std::vector<std::pair<std::string, std::string>> worker_flags;
  std::vector<std::string> worker_switches;  // Flags without a value.
  std::vector<std::pair<std::string, std::string>> router_flags;
  std::vector<std::pair<std::string, std::string>> scheduler_flags;
  std::vector<std::string> scheduler_switches;
  std::vector<std::string> router_switches;

  // Who may use the cluster (docs/SECURITY.md).
  std::vector<std::string> api_keys;  // Files; empty: everybody.
  bool allow_unauthenticated = false;
  TlsFiles tls;               // Certificate and key of the router's ports.
  std::string cluster_certs;  // Folder as `fathom certs` makes it; empty: no TLS in the cluster.

  // The GPUs that the workers may use (CUDA_VISIBLE_DEVICES); nullopt: all GPUs of the machine.
  // Each of several workers sees its own first, and then those of its group.
  std::optional<std::vector<std::string>> visible_gpus;
  bool allow_shared_device = false;  // All workers use the first one.

  // `fathom workers`, which starts the ranks of one group on this host and nothing else.
  std::vector<std::string> schedulers;    // host:port each; empty: the scheduler of this machine.
  std::string worker_host = kInsideHost;  // Where the workers listen.
  int32_t first_rank = 0;                 // --rank of worker 0.
  int32_t nodes = 1;                      // Hosts that share a group, each with as many ranks.
  int32_t restart_after_s = 30;  // A worker that stands still so long is started again; 0: never.

  GroupShape shape() const { return {tp, pp}; }
  // Ranks of one group on this host. REQUIRES for an exact number: CheckOptions is OK.
  int32_t local_ranks() const { return shape().ranks() / nodes; }
  int32_t workers() const { return local_ranks() * dp; }
};

// Refuses what this build cannot do, and values that exclude each other.
absl::Status CheckOptions(const ServeOptions& options);

// Refuses an address of other machines without keys, and certificates without their companions.
absl::Status CheckAccess(const ServeOptions& options);

// The limits of the system that `fathom serve` needs with so many workers, a router and a
// scheduler (docs/OPERATIONS.md, "Limits of the system"); the threads are those of all of them.
HostNeeds ServeNeeds(int32_t workers);

// The number of a group from `text`: a number, or a name that ends with one, e.g. 3 from the name
// "chat-worker-3" of a pod in a StatefulSet. INVALID_ARGUMENT names --group and the text.
absl::StatusOr<int32_t> GroupNumber(std::string_view text);

// Sets first_rank: group `group`, host `node_rank` of the options.nodes that share the group.
// INVALID_ARGUMENT if there is no such host or the ranks have no numbers. REQUIRES: CheckOptions
// is OK.
absl::Status PlaceGroup(int32_t group, int32_t node_rank, ServeOptions* options);

// The name of the run directory of the cluster at this address, e.g. "fathom-127.0.0.1-8001".
// Clusters that can run at the same time have different names. REQUIRES: grpc_port is not 0.
std::string RunDirName(const ServeOptions& options);

// The address at which a process of this machine dials the scheduler.
std::string SchedulerAddress(const ServeOptions& options, int32_t port);

// The order of stopping: processes that bring work in stop first.
inline constexpr int kStopRouter = 0;
inline constexpr int kStopEdge = 1;
inline constexpr int kStopWorkers = 1;
inline constexpr int kStopScheduler = 2;

// `bin_dir` has the programs. REQUIRES for the router, and for workers without options.schedulers:
// the scheduler's port is known.
ChildSpec SchedulerSpec(const ServeOptions& options, const std::string& bin_dir);
ChildSpec WorkerSpec(const ServeOptions& options, const std::string& bin_dir,
                     int32_t scheduler_port, int32_t index);
ChildSpec RouterSpec(const ServeOptions& options, const std::string& bin_dir,
                     int32_t scheduler_port);
// HAProxy in front of the router, run by `fathom edge`. REQUIRES: the router's port is known.
ChildSpec EdgeSpec(const ServeOptions& options, const std::string& bin_dir, int32_t router_port);

}  // namespace fathom::client
