// cli/commands.h: the commands of `fathom`, one file each (cmd_<name>.cc), and their common
// helpers. A command gets its arguments with argv[0] = its name and returns the exit code
// (common/flags.h).
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "client/client.h"
#include "common/flags.h"
#include "common/status.h"
#include "common/tls_files.h"

namespace fathom::client {

int RunServe(int argc, const char* const* argv);
int RunWorkers(int argc, const char* const* argv);
int RunChat(int argc, const char* const* argv);
int RunComplete(int argc, const char* const* argv);
int RunVerify(int argc, const char* const* argv);
int RunTokenize(int argc, const char* const* argv);
int RunRender(int argc, const char* const* argv);
int RunPlan(int argc, const char* const* argv);
int RunAccept(int argc, const char* const* argv);
int RunDoctor(int argc, const char* const* argv);
int RunStatus(int argc, const char* const* argv);
int RunExplain(int argc, const char* const* argv);
int RunProfile(int argc, const char* const* argv);
int RunBench(int argc, const char* const* argv);
int RunReplay(int argc, const char* const* argv);
int RunEdge(int argc, const char* const* argv);
int RunKeys(int argc, const char* const* argv);
int RunCerts(int argc, const char* const* argv);

// --server and what belongs to it, which every command has that talks to a cluster.
struct ServerFlag {
  std::string servers = "127.0.0.1:8001";
  bool use_proxy = false;
  std::string api_key;
  bool tls = false;
  TlsFiles tls_files;
  void Add(Flags& flags);
  bool has_tls() const { return tls || !tls_files.ca.empty() || tls_files.on(); }
  // INVALID_ARGUMENT names the invalid address, or the file of TLS that cannot be used.
  absl::StatusOr<std::unique_ptr<Client>> Dial() const;
};

// Splits the text at commas; an empty text gives no words.
std::vector<std::string> SplitCommas(const std::string& text);
// Parses "1,2,3". INVALID_ARGUMENT names the word that is not a token id.
absl::StatusOr<std::vector<TokenId>> ParseIds(const std::string& text);

// "2026-12-01 06:14:59 UTC", for reports.
std::string NowUtc();

// Prints the error in one line on stderr and returns the matching exit code.
int Fail(const std::string& command, const absl::Status& status);

// Reads a whole file. NOT_FOUND or INVALID_ARGUMENT (more than max_bytes) names it.
absl::StatusOr<std::string> ReadWholeFile(const std::string& path, int64_t max_bytes);

}  // namespace fathom::client
