// cli/serve/cluster_plan.h: which processes `fathom serve` runs, with which flags. Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "cli/serve/child_spec.h"
#include "common/status.h"

namespace fathom::client {

// Where scheduler and workers listen: the cluster's own traffic stays on this machine.
inline constexpr char kInsideHost[] = "127.0.0.1";

struct ServeOptions {
  std::string model;
  std::string hf_overrides;   // Handed to router and workers alike.
  std::string chat_template;  // Handed to the router.
  std::string device = "auto";
  int32_t tp = 1;
  int32_t pp = 1;
  int32_t dp = 1;
  std::string host = "127.0.0.1";
  int32_t http_port = 8000;
  int32_t grpc_port = 8001;
  int32_t scheduler_metrics_port = 8002;
  int32_t scheduler_port = 8003;
  int32_t worker_port = 8010;          // Worker i has worker_port + i; 0: any free one each.
  int32_t worker_metrics_port = 8110;  // Likewise.
  std::string log_level = "info";
  std::string run_dir;
  bool edge = false;    // HAProxy has grpc_port, and the router any free one behind it.
  int32_t own_pid = 0;  // Of the process that starts the others.
  bool json = false;
  bool verbose = false;
  int32_t start_timeout_s = 1800;
  int32_t drain_timeout_s = 30;
  // Flag and value, handed to the process as they are.
  std::vector<std::pair<std::string, std::string>> worker_flags;
  std::vector<std::string> worker_switches;  // Flags without a value.
  std::vector<std::pair<std::string, std::string>> router_flags;
  std::vector<std::pair<std::string, std::string>> scheduler_flags;

  // The GPUs that the workers may use (CUDA_VISIBLE_DEVICES); nullopt: all of the machine. With
  // several workers each one sees one of them.
  std::optional<std::vector<std::string>> visible_gpus;

  int32_t workers() const { return tp * dp; }
};

// What this build cannot do, and values that exclude each other.
absl::Status CheckOptions(const ServeOptions& options);

// Name of the run directory of the cluster at this address, e.g. "fathom-127.0.0.1-8001": clusters
// that can run beside each other have different ones. REQUIRES: grpc_port is not 0.
std::string RunDirName(const ServeOptions& options);

// Order of stopping: who brings work in stops first.
inline constexpr int kStopRouter = 0;
inline constexpr int kStopEdge = 1;
inline constexpr int kStopWorkers = 1;
inline constexpr int kStopScheduler = 2;

// `bin_dir` holds the binaries. REQUIRES for workers and router: the scheduler's port is known.
ChildSpec SchedulerSpec(const ServeOptions& options, const std::string& bin_dir);
ChildSpec WorkerSpec(const ServeOptions& options, const std::string& bin_dir,
                     int32_t scheduler_port, int32_t index);
ChildSpec RouterSpec(const ServeOptions& options, const std::string& bin_dir,
                     int32_t scheduler_port);
// HAProxy in front of the router, by `fathom edge`. REQUIRES: the router's port is known.
ChildSpec EdgeSpec(const ServeOptions& options, const std::string& bin_dir, int32_t router_port);

}  // namespace fathom::client
