// http/process_routes.h: the routes that every process of the cluster has on its HTTP port, for
// probes, Prometheus and people:
//   /health/live      200, or 503: restart this process
//   /health/ready     200: it does its work now, or 503; /health is the same
//   /health/progress  a worker: 503 if a step has made no progress for too long; else as live
//   /version, /metrics
// The answers of /health are JSON with the reason. /livez is the old name of /health/live.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "common/listener.h"
#include "common/loop_watch.h"
#include "common/metrics.h"
#include "common/self_dial.h"
#include "http/routes.h"
#include "http/server.h"

namespace fathom::http {

// Each function runs on the server's thread, must not wait, and says in its error what is wrong.
struct Health {
  std::function<absl::Status()> live;
  std::function<absl::Status()> ready;
  std::function<absl::Status()> progress;  // Empty: as live.
};

void AddProcessRoutes(const std::string& role, const Metrics* metrics, const Health& health,
                      Routes* routes);

// Alive: each port of the process answers new connections, and its main loop turns. REQUIRES:
// `self` and `loop` outlive the function.
std::function<absl::Status()> LiveBy(const SelfDial* self, const LoopWatch* loop);

// A server with these routes and those in `routes`, whose answers are counted in
// fathom_<role>_http_requests_total. REQUIRES: `metrics` outlives the server.
std::unique_ptr<Server> ServeProcess(Listener listener, const std::string& role, Metrics* metrics,
                                     const Health& health, Routes routes = {},
                                     const Limits& limits = {}, Protection protection = {});

}  // namespace fathom::http
