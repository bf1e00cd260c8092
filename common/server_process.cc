#include "common/server_process.h"

#include "common/host_limits.h"
#include "common/log.h"
#include "common/output.h"

namespace fathom {
namespace {

// Set once by StartServer, before other threads start.
const char* server_role = "server";

std::string ServerProgram() { return std::string("fathom-") + server_role; }

}  // namespace

void StartServer(const char* role) {
  PrepareOutput();
  server_role = role;
  InstallLastWords(ServerProgram().c_str());
  HandleStopSignals();
}

void AddParentFlag(int32_t* parent_pid, Flags* flags) {
  flags->Add("--die-with-parent", parent_pid, 0, INT32_MAX,
             "Process id of the parent: end when that process ends; 0: do not.");
}

void AddLogLevelFlag(std::string* log_level, Flags* flags) {
  flags->AddChoice("--log-level", log_level, {"debug", "info", "warn", "error"},
                   "Least level that is logged.");
}

void AddProcessFlags(ProcessOptions* options, Flags* flags) {
  AddParentFlag(&options->parent_pid, flags);
  AddLogLevelFlag(&options->log_level, flags);
}

void ApplyProcessOptions(const ProcessOptions& options) {
  if (options.parent_pid > 0) DieWithParent(options.parent_pid);
  LogInit(server_role, options.log_level);
}

int EndServer() {
  LogFlush();
  return kExitOk;
}

int EndServer(int code, const absl::Status& why) {
  LogFlush();
  Diagnose("{}: {}", ServerProgram(), Message(why));
  return code;
}

}  // namespace fathom
