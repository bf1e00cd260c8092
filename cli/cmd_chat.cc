#include <fmt/format.h>
#include <unistd.h>

#include <iostream>

#include "cli/commands.h"
#include "cli/request_flags.h"
#include "common/output.h"

namespace fathom::client {
namespace {

// Asks one question; question and answer become part of the conversation.
absl::Status Ask(Client& client, const RequestFlags& flags, ChatRequest* request) {
  flags.DrawId(request);
  AnswerPrinter printer(flags.json, flags.n);
  auto answer = client.Chat(*request, [&](const Event& event) { return printer.OnEvent(event); });
  printer.Finish();
  if (!FlushAnswer()) return absl::OkStatus();  // The reader is gone, so the call was ended.
  if (!answer.ok()) {
    printer.ShowId(request->request_id);
    return answer.status();
  }
  WarnOfKinds(*answer);
  if (flags.json) PrintAnswer("{}\n", AnswerJson(*answer));
  request->conversation.messages.push_back(
      {.role = "assistant", .content = answer->sequences[0].text});
  return absl::OkStatus();
}

int Converse(Client& client, const RequestFlags& flags, ChatRequest* request) {
  const bool terminal = isatty(STDIN_FILENO) == 1;
  if (terminal) PrintAnswer("An empty line or Ctrl-D ends the conversation.\n");
  for (;;) {
    if (terminal) PrintAnswer("> ");
    if (!FlushAnswer()) return kExitOk;  // EndAnswer reports it.
    std::string line;
    if (!std::getline(std::cin, line) || line.empty()) return kExitOk;
    request->conversation.messages.push_back({.role = "user", .content = line});
    if (auto status = Ask(client, flags, request); !status.ok()) return Fail("chat", status);
  }
}

}  // namespace

int RunChat(int argc, const char* const* argv) {
  Flags flags("fathom chat", "Streams an answer; without PROMPT, a conversation.");
  std::string prompt, system, kwargs;
  bool thinking = false;
  ServerFlag server;
  RequestFlags request_flags;
  flags.AddPositional("PROMPT", &prompt, /*required=*/false, "What to say to the model");
  flags.Group("Prompt");
  flags.Add("--system", &system, "What the model is told before the conversation");
  flags.Add("--thinking", &thinking, "Let the model think first, where its template can");
  flags.Add("--chat-template-kwargs", &kwargs,
            "JSON object of variables for the chat template, e.g. {\"thinking\": true}");
  server.Add(flags);
  request_flags.Add(flags);
  if (const auto code = flags.Parse(argc, argv)) return *code;

  if (prompt.empty() && request_flags.n > 1) {
    return Fail("chat", Invalid("-n {} needs PROMPT: a conversation goes on with one answer",
                                request_flags.n));
  }
  ChatRequest request;
  if (!system.empty()) {
    request.conversation.messages.push_back({.role = "system", .content = system});
  }
  request.conversation.chat_template_kwargs_json = kwargs;
  if (thinking) request.conversation.enable_thinking = true;
  if (auto status = request_flags.Apply(&request); !status.ok()) return Fail("chat", status);

  const auto client = server.Dial();
  if (!client.ok()) return Fail("chat", client.status());
  if (prompt.empty()) return Converse(**client, request_flags, &request);
  request.conversation.messages.push_back({.role = "user", .content = prompt});
  const absl::Status status = Ask(**client, request_flags, &request);
  return status.ok() ? kExitOk : Fail("chat", status);
}

}  // namespace fathom::client
