// cli/commands.h: the commands of `fathom`, one file each (cmd_<name>.cc), and what they share.
// A command gets its arguments with argv[0] = its name and returns the exit code (common/flags.h).
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "client/client.h"
#include "common/flags.h"
#include "common/status.h"

namespace fathom::client {

int RunServe(int argc, const char* const* argv);
int RunChat(int argc, const char* const* argv);
int RunComplete(int argc, const char* const* argv);
int RunVerify(int argc, const char* const* argv);
int RunTokenize(int argc, const char* const* argv);
int RunRender(int argc, const char* const* argv);
int RunPlan(int argc, const char* const* argv);
int RunStatus(int argc, const char* const* argv);
int RunProfile(int argc, const char* const* argv);
int RunBench(int argc, const char* const* argv);
int RunReplay(int argc, const char* const* argv);
int RunEdge(int argc, const char* const* argv);

// --server and --use-proxy, in every command that talks to a cluster.
struct ServerFlag {
  std::string servers = "127.0.0.1:8001";
  bool use_proxy = false;
  void Add(Flags& flags);
  // INVALID_ARGUMENT names the address that is none.
  absl::StatusOr<std::unique_ptr<Client>> Dial() const;
};

// The text between commas; none of an empty text.
std::vector<std::string> SplitCommas(const std::string& text);
// "1,2,3". INVALID_ARGUMENT names the word that is not a token id.
absl::StatusOr<std::vector<TokenId>> ParseIds(const std::string& text);

// Says what went wrong in one line on stderr; returns the exit code that fits.
int Fail(const std::string& command, const absl::Status& status);

// A whole file. NOT_FOUND or INVALID_ARGUMENT (more than max_bytes) with its name.
absl::StatusOr<std::string> ReadWholeFile(const std::string& path, int64_t max_bytes);

}  // namespace fathom::client
