// cli/serve/child_spec.h: how a supervised process is started and stopped.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace fathom::client {

struct ChildSpec {
  std::string name;               // "router", "worker-0".
  std::vector<std::string> argv;  // argv[0] is the program's path; the port flags are not included.
  std::map<std::string, std::string> environment;  // Added to our environment; it has precedence.
  // Key of the listening line -> {flag, wanted port}. A port stays the same over restarts.
  struct Port {
    std::string flag;
    int32_t port = 0;
  };
  std::map<std::string, Port> ports;
  // The phase that ends the child's start; empty: the child is up when it listens.
  std::string ready_phase;
  int stop_stage = 0;  // Lower stages stop first; a stage ends when its processes have ended.
};

}  // namespace fathom::client
