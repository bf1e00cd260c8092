#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "common/output.h"

namespace fathom::client {

int RunStatus(int argc, const char* const* argv) {
  Flags flags("fathom status",
              "What the cluster does now; exit 0 only when it can answer, else 69.");
  ServerFlag server;
  bool json = false;
  server.Add(flags);
  flags.Group("Output");
  flags.Add("--json", &json, "Print one JSON object");
  if (const auto code = flags.Parse(argc, argv)) return *code;

  const auto client = server.Dial();
  if (!client.ok()) return Fail("status", client.status());
  const auto got = (*client)->GetStatus(/*deadline_ms=*/5000);
  if (!got.ok()) {
    Fail("status", got.status());
    return kExitUnavailable;
  }
  const ClusterStatus& status = *got;
  if (json) {
    const nlohmann::ordered_json all = {{"ready", status.ready},
                                        {"reason", status.reason},
                                        {"model", status.model},
                                        {"build", status.build},
                                        {"term", status.term},
                                        {"groups", status.groups},
                                        {"requests_running", status.requests_running},
                                        {"requests_waiting", status.requests_waiting},
                                        {"blocks_total", status.blocks_total},
                                        {"blocks_used", status.blocks_used},
                                        {"sessions", status.sessions},
                                        {"fingerprint", status.fingerprint},
                                        {"context_tokens", status.context_tokens},
                                        {"last_loss", status.last_loss},
                                        {"losses_alike", status.losses_alike}};
    PrintAnswer("{}\n", all.dump());
  } else {
    PrintAnswer("{}{}\n",
                status.ready ? "ready" : "not ready: ", status.ready ? "" : status.reason);
    PrintAnswer("model        {} ({} tokens of context)\n", status.model, status.context_tokens);
    PrintAnswer("cluster      {} groups, term {}, build {}\n", status.groups, status.term,
                status.build);
    PrintAnswer("requests     {} running, {} waiting, {} sessions at this router\n",
                status.requests_running, status.requests_waiting, status.sessions);
    PrintAnswer("kv cache     {} of {} blocks used\n", status.blocks_used, status.blocks_total);
    PrintAnswer("fingerprint  {}\n", status.fingerprint);
    if (!status.last_loss.empty()) PrintAnswer("last loss    {}\n", status.last_loss);
  }
  return status.ready ? kExitOk : kExitUnavailable;
}

}  // namespace fathom::client
