// cli/status/watch.h: `fathom status --watch`: reads a cluster again and again. On a terminal it
// draws one screen and gives the terminal back at the end; into a pipe or a file it writes each
// reading as text, or as a line of JSON. Thread: the calling one.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "client/client.h"

namespace fathom::client {

struct WatchOptions {
  int32_t interval_ms = 1000;
  int32_t count = 0;  // Readings; 0: until a stop signal or until nobody reads.
  bool json = false;
  std::string scheduler_metrics;  // host:port; "": unknown.
};

// Returns 0 after a stop signal, else by the last reading: 0 if the cluster was ready, 69 if not.
// REQUIRES: stop signals are blocked.
int Watch(Client& client, const WatchOptions& options);

// The object that `fathom status --json` prints (cmd_status.cc).
nlohmann::ordered_json StatusJson(const ClusterStatus& status);

}  // namespace fathom::client
