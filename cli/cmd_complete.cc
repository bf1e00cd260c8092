#include <fmt/format.h>

#include "cli/commands.h"
#include "cli/request_flags.h"
#include "common/output.h"

namespace fathom::client {

int RunComplete(int argc, const char* const* argv) {
  Flags flags("fathom complete", "Streams the continuation of a text.");
  std::string prompt, token_ids;
  ServerFlag server;
  RequestFlags request_flags;
  flags.AddPositional("PROMPT", &prompt, /*required=*/false, "The text to go on with");
  flags.Group("Prompt");
  flags.Add("--token-ids", &token_ids,
            "Token ids with commas instead of PROMPT (a model without a tokenizer)");
  bool ignore_eos = false;
  flags.Add("--ignore-eos", &ignore_eos, "Go on behind the model's end token");
  server.Add(flags);
  request_flags.Add(flags);
  if (const auto code = flags.Parse(argc, argv)) return *code;
  if (prompt.empty() == token_ids.empty()) {
    return Fail("complete", Invalid("give PROMPT or --token-ids; see fathom complete --help"));
  }

  GenerateRequest request;
  request.prompt = prompt;
  if (!token_ids.empty()) {
    auto ids = ParseIds(token_ids);
    if (!ids.ok()) return Fail("complete", Annotate(ids.status(), "--token-ids"));
    request.prompt = *std::move(ids);
  }
  request.stop.ignore_eos = ignore_eos;
  if (auto status = request_flags.Apply(&request); !status.ok()) return Fail("complete", status);

  request_flags.DrawId(&request);
  AnswerPrinter printer(request_flags.json, request_flags.n);
  const auto client = server.Dial();
  if (!client.ok()) return Fail("complete", client.status());
  const auto answer =
      (*client)->Generate(request, [&](const Event& event) { return printer.OnEvent(event); });
  printer.Finish();
  // The reader is gone, so the call was ended; EndAnswer reports it.
  if (!FlushAnswer()) return kExitOk;
  if (!answer.ok()) {
    printer.ShowId(request.request_id);
    return Fail("complete", answer.status());
  }
  WarnOfKinds(*answer);
  if (request_flags.json) {
    PrintAnswer("{}\n", AnswerJson(*answer));
  } else {
    for (const SequenceResult& sequence : answer->sequences) {
      // There is no tokenizer, so the ids are printed.
      if (!sequence.text.empty() || sequence.ids.empty()) continue;
      PrintAnswer("{}\n", fmt::join(sequence.ids, ","));
    }
  }
  return kExitOk;
}

}  // namespace fathom::client
