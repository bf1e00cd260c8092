#include "common/server_process.h"

#include "common/address.h"
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

void AddLogFlags(std::string* log_level, std::string* log_format, Flags* flags) {
  flags->AddChoice("--log-level", log_level, {"debug", "info", "warn", "error"},
                   "Least level that is logged; SIGUSR1 sets debug, SIGUSR2 sets it back");
  flags->AddChoice("--log-format", log_format, {"auto", "json", "text"},
                   "Form of a log line; auto: text on a terminal.");
}

void AddClusterTlsFlags(TlsFiles* files, Flags* flags) {
  flags->Group("TLS in the cluster");
  flags->Add("--cluster-cert", &files->cert,
             "Certificate (PEM) of this process for its streams in the cluster; it has the name of "
             "its role (docs/SECURITY.md). It is read again when it changes.");
  flags->Add("--cluster-key", &files->key, "Its private key (PEM).");
  flags->Add("--cluster-ca", &files->ca,
             "Roots (PEM) of the certificates of all processes of the cluster.");
}

absl::StatusOr<std::unique_ptr<LiveTlsFiles>> OpenClusterTls(const TlsFiles& files,
                                                             const std::string& name) {
  return LiveTlsFiles::Open(files, {"--cluster-cert", "--cluster-key", "--cluster-ca"},
                            /*ca_required=*/true, name);
}

void ReloadTls(LiveTlsFiles* files) {
  const absl::StatusOr<bool> taken = files->Reload();
  if (!taken.ok())
    LogWarn("certificates have changed and are not taken: {}", Message(taken.status()));
  if (taken.ok() && *taken) LogInfo("certificates have changed and were taken");
}

void WarnIfOpen(const TlsFiles& files, const std::string& host) {
  if (files.on() || IsLoopback(host)) return;
  LogWarn(
      "--host {} is an address of other machines, and without --cluster-cert everybody who reaches "
      "this port is taken for a process of the cluster; only a private network keeps them away",
      host);
}

void AddProcessFlags(ProcessOptions* options, Flags* flags) {
  AddParentFlag(&options->parent_pid, flags);
  AddLogFlags(&options->log_level, &options->log_format, flags);
}

void ApplyProcessOptions(const ProcessOptions& options) {
  if (options.parent_pid > 0) DieWithParent(options.parent_pid);
  LogInit(server_role, options.log_level, options.log_format);
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
