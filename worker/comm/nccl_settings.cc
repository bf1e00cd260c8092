#include "worker/comm/nccl_settings.h"

#include <fmt/format.h>
#include <net/if.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <string_view>
#include <utility>

#include "common/log.h"
#include "worker/comm/nccl_log.h"

extern char** environ;

namespace fathom::worker {
namespace {

std::vector<std::string> NcclVariables() {
  std::vector<std::string> variables;
  for (char** variable = environ; *variable != nullptr; ++variable) {
    if (std::string_view(*variable).starts_with("NCCL_")) variables.emplace_back(*variable);
  }
  return variables;
}

// Whether the flag decides the variable.
bool SetUnlessGiven(const char* variable, const std::string& value) {
  const char* const given = std::getenv(variable);
  if (given != nullptr && *given != '\0') return false;
  setenv(variable, value.c_str(), 1);
  return true;
}

}  // namespace

std::vector<std::string> NetworkInterfaces() {
  std::vector<std::string> names;
  struct if_nameindex* const all = if_nameindex();
  for (const auto* one = all; one != nullptr && one->if_index != 0; ++one) {
    names.emplace_back(one->if_name);
  }
  if (all != nullptr) if_freenameindex(all);
  std::sort(names.begin(), names.end());
  names.erase(std::unique(names.begin(), names.end()), names.end());
  return names;
}

absl::Status CheckNcclInterface(const std::string& name,
                                const std::vector<std::string>& interfaces) {
  if (std::find(interfaces.begin(), interfaces.end(), name) != interfaces.end()) {
    return absl::OkStatus();
  }
  return Invalid("--nccl-interface {}: this host has no such network interface; it has {}", name,
                 fmt::join(interfaces, ", "));
}

absl::Status ApplyNcclSettings(const NcclSettings& settings) {
  if (!settings.interface.empty()) {
    FATHOM_RETURN_IF_ERROR(CheckNcclInterface(settings.interface, NetworkInterfaces()));
  }
  const std::vector<std::string> given = NcclVariables();
  if (!given.empty()) {
    LogInfo("NCCL variables of the environment, which have precedence over flags: {}",
            fmt::join(given, ", "));
  }
  // "=" asks for this name; without it NCCL takes every name that begins so.
  if (!settings.interface.empty()) SetUnlessGiven("NCCL_SOCKET_IFNAME", "=" + settings.interface);
  if (settings.debug.empty()) return absl::OkStatus();
  SetUnlessGiven("NCCL_DEBUG", settings.debug);
  const char* const file = std::getenv("NCCL_DEBUG_FILE");
  if (file != nullptr && *file != '\0') return absl::OkStatus();
  const std::string path = settings.debug_file.empty() ? fmt::format("fathom-nccl-{}.log", getpid())
                                                       : settings.debug_file;
  FATHOM_ASSIGN_OR_RETURN(NcclLog* const log, StartNcclLog(path));
  setenv("NCCL_DEBUG_FILE", log->nccl_path().c_str(), 1);
  LogInfo("NCCL writes {} to {}", settings.debug, path);
  return absl::OkStatus();
}

}  // namespace fathom::worker
