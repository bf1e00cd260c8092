// cli/accept/accept_run.h: sends the requests of `fathom accept` to a cluster and records what came
// back; nothing is judged here. Thread: the calling one, plus one for each request in flight.
#pragma once

#include <string>
#include <vector>

#include "cli/accept/accept_rules.h"
#include "client/client.h"
#include "common/clock.h"
#include "http/client.h"

namespace fathom::client {

struct AcceptOptions {
  std::string server;                  // For the report.
  std::vector<std::string> processes;  // HTTP addresses, each asked for /version.
  bool processes_given = false;        // By the user: then each must answer.
  http::CallLimits call;               // How they are asked.
  int32_t requests = 100;
  int32_t concurrency = 1;
  int32_t input_len = 128, output_len = 32;
  int32_t stress_requests = 48, stress_concurrency = 8;
  int64_t seed = 1;
};

// UNAVAILABLE: no cluster, or one that is not ready. Later errors are part of the result.
absl::StatusOr<AcceptRun> RunAcceptance(Client& client, const AcceptOptions& options,
                                        const Clock& clock);

}  // namespace fathom::client
