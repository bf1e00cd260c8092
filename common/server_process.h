// common/server_process.h: what the mains of the servers (router, scheduler, worker) have in
// common: the start, the flags about the process, the duration of a part of the start, and the end.
// Thread: main only.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "common/clock.h"
#include "common/exit_codes.h"
#include "common/flags.h"
#include "common/live_tls_files.h"
#include "common/process.h"
#include "common/status.h"

namespace fathom {

// Must be first in main. `role` is a literal: "router", "scheduler" or "worker"; the program is
// fathom-<role>.
void StartServer(const char* role);

struct ProcessOptions {
  int32_t parent_pid = 0;  // The process ends when that process ends; 0: it does not.
  std::string log_level = "info";
  std::string log_format = "auto";
};
// --die-with-parent, --log-level and --log-format.
void AddProcessFlags(ProcessOptions* options, Flags* flags);
void AddParentFlag(int32_t* parent_pid, Flags* flags);
// --cluster-cert, --cluster-key and --cluster-ca: mutual TLS between the processes of a cluster.
void AddClusterTlsFlags(TlsFiles* files, Flags* flags);
// They, checked, for a process with this name in its certificate (common/tls_files.h).
absl::StatusOr<std::unique_ptr<LiveTlsFiles>> OpenClusterTls(const TlsFiles& files,
                                                             const std::string& name);
// Takes files that have changed; what is wrong is logged and changes nothing. About once a second.
void ReloadTls(LiveTlsFiles* files);
// A line of the log if the port of such a process is open to other machines.
void WarnIfOpen(const TlsFiles& files, const std::string& host);
void AddLogFlags(std::string* log_level, std::string* log_format, Flags* flags);
// From now on the log has the level of the flags, and the process ends with its parent.
void ApplyProcessOptions(const ProcessOptions& options);

// Runs a part of the start, prints its duration for `fathom serve`, and returns its result.
template <class Work>
auto TimedPhase(const Clock& clock, const char* name, Work work) {
  const TimeUs start = clock.Now();
  auto result = work();
  PrintPhase(name, clock.Now() - start);
  return result;
}

// The end of main, once the log is written. An error is one line on stderr, for people; the exit
// code is for the supervisor. Both return the exit code.
int EndServer();
int EndServer(int code, const absl::Status& why);

}  // namespace fathom
