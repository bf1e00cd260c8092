// fathom: the command line. Each command has a file; this file has the table of commands.
#include <string>
#include <string_view>
#include <vector>

#include "cli/commands.h"
#include "common/flag_names.h"
#include "common/host_limits.h"
#include "common/output.h"
#include "common/process.h"

namespace {

struct Command {
  std::string_view name;
  std::string_view summary;
  int (*run)(int argc, const char* const* argv);
};

constexpr Command kCommands[] = {
    {"serve", "start, watch and stop a whole cluster on this machine", fathom::client::RunServe},
    {"workers", "start, watch and stop the workers of one group, for a scheduler elsewhere",
     fathom::client::RunWorkers},
    {"chat", "talk to the model", fathom::client::RunChat},
    {"complete", "let the model go on with a text", fathom::client::RunComplete},
    {"verify", "compare a running cluster with recorded answers", fathom::client::RunVerify},
    {"tokenize", "token ids of a text, or check recorded ones", fathom::client::RunTokenize},
    {"render", "check a chat template against recorded prompts", fathom::client::RunRender},
    {"plan", "where a GPU's memory goes, and what fits", fathom::client::RunPlan},
    {"doctor", "whether a cluster can start on this machine, and what to change",
     fathom::client::RunDoctor},
    {"status", "what the cluster does now", fathom::client::RunStatus},
    {"accept", "the checklist after a rollout: versions, equalities, stress, latency",
     fathom::client::RunAccept},
    {"explain", "where the time of one request went", fathom::client::RunExplain},
    {"profile", "trace the next steps of the workers, host and device", fathom::client::RunProfile},
    {"bench", "measure latency, throughput, starts, or an open loop of requests",
     fathom::client::RunBench},
    {"replay", "a recording of the scheduler, through its core again", fathom::client::RunReplay},
    {"keys", "make, list and remove API keys", fathom::client::RunKeys},
    {"certs", "make certificates for development", fathom::client::RunCerts},
    {"edge", "HAProxy in front of a router, for untrusted clients", fathom::client::RunEdge},
};

// The needs of a command that talks to a cluster; `serve` needs more and checks that itself.
constexpr fathom::HostNeeds kNeeds{.descriptors = 12};

void PrintHelp() {
  fathom::PrintAnswer("Usage: fathom COMMAND [...]\n\n");
  for (const Command& command : kCommands) {
    fathom::PrintAnswer("  {:<10} {}\n", command.name, command.summary);
  }
  fathom::PrintAnswer("\nfathom COMMAND --help tells its flags; fathom --version the version.\n");
}

}  // namespace

int main(int argc, char** argv) {
  fathom::PrepareOutput();
  fathom::InstallLastWords("fathom");
  const std::string name = argc > 1 ? argv[1] : "--help";
  if (name == "--help" || name == "-h" || name == "help") {
    PrintHelp();
    return fathom::EndAnswer("fathom", argc > 1 ? fathom::kExitOk : fathom::kExitUsage);
  }
  if (name == "--version") {
    fathom::PrintAnswer("fathom {}\n", fathom::BuildVersion());
    return fathom::EndAnswer("fathom", fathom::kExitOk);
  }
  std::vector<std::string> names;
  for (const Command& command : kCommands) {
    if (command.name == name) {
      const auto enough = fathom::CheckHostLimits(kNeeds, fathom::TakeHostLimits());
      if (!enough.ok()) {
        fathom::Diagnose("fathom {}: {}", name, fathom::Message(enough));
        return fathom::kExitResources;
      }
      return fathom::EndAnswer("fathom " + name, command.run(argc - 1, argv + 1));
    }
    names.emplace_back(command.name);
  }
  const std::string nearest = fathom::NearestName(name, names);
  fathom::Diagnose("fathom: unknown command '{}'{}; see fathom --help", name,
                   nearest.empty() ? "" : fmt::format("; did you mean {}?", nearest));
  return fathom::kExitUsage;
}
