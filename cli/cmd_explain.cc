#include <fmt/format.h>

#include "cli/commands.h"
#include "cli/explain_report.h"
#include "common/output.h"

namespace fathom::client {

int RunExplain(int argc, const char* const* argv) {
  Flags flags("fathom explain", "Tells where the time of one request went.");
  std::string request_id;
  ServerFlag server;
  bool json = false;
  flags.AddPositional("REQUEST_ID", &request_id, /*required=*/true,
                      "The id that Started told; fathom chat and complete print it on stderr");
  server.Add(flags);
  flags.Group("Output");
  flags.Add("--json", &json, "Print one JSON object");
  if (const auto code = flags.Parse(argc, argv)) return *code;

  const auto client = server.Dial();
  if (!client.ok()) return Fail("explain", client.status());
  const auto explanation = (*client)->Explain(request_id);
  if (!explanation.ok()) return Fail("explain", explanation.status());
  if (json) {
    PrintAnswer("{}\n", ExplainJson(*explanation));
  } else {
    PrintAnswer("{}", ExplainText(*explanation));
  }
  return kExitOk;
}

}  // namespace fathom::client
