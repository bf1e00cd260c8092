// The C++ client (client/client.h): a chat as a stream, which survives the end of any one process.
// The address of a router is the argument; default: 127.0.0.1:8001.
#include "client/client.h"

#include <cstdio>
#include <string>
#include <variant>

using fathom::client::ChatMessage;
using fathom::client::ChatRequest;
using fathom::client::Client;
using fathom::client::ClientOptions;
using fathom::client::Event;
using fathom::client::Tokens;

int main(int argc, char** argv) {
  ClientOptions options;
  options.servers = {argc > 1 ? argv[1] : "127.0.0.1:8001"};
  Client client(options);

  ChatMessage question;
  question.role = "user";
  question.content = "What is the capital of France?";
  ChatRequest request;
  request.conversation.messages.push_back(question);
  request.sampling.temperature = 0.0f;
  request.stop.max_tokens = 32;

  std::printf("stream: ");
  const auto answer = client.Chat(request, [](const Event& event) {
    if (const auto* tokens = std::get_if<Tokens>(&event)) {
      std::fwrite(tokens->text.data(), 1, tokens->text.size(), stdout);
    }
    return true;  // false: cancel the call.
  });
  if (!answer.ok()) {
    std::printf("\n%s\n", fathom::ToString(answer.status()).c_str());
    return 1;
  }
  std::printf("\nanswer: %s\n", answer->sequences[0].text.c_str());

  request.sampling.temperature = 7.0f;
  const auto refused = client.Chat(request);
  std::printf("refused: %s\n", std::string(fathom::Message(refused.status())).c_str());
  return refused.ok() ? 1 : 0;
}
