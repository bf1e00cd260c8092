// client/client.h: the C++ client of a Fathom router (target fathom::client; its headers include no
// Protobuf and no gRPC).
//
// An answer survives the end of any one process. If a stream breaks, is silent for `silence_ms` or
// skips a position, the client continues at the next address with Resume. If no router knows the
// request any more, the client sends the whole request with the same seed again. Tokens that it
// already has are dropped. A call succeeds only if every sequence has its Finish. Errors are
// absl::Status with the router's message; DetailOf(status) gives the reason, the field and the
// retry delay.
//
// Thread: any number of threads may share a Client. A call blocks its own thread and calls its
// callback there.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "client/types.h"
#include "common/status.h"
#include "common/tls_files.h"

namespace fathom::client {

struct ClientOptions {
  std::vector<std::string> servers;  // host:port of routers, tried in turn; at least one.
  // A stream is given up after this time without a frame (routers send one each second).
  int64_t silence_ms = 3000;
  int64_t first_frame_ms = 10000;  // The same limit before the first frame of a stream.
  // A call ends with UNAVAILABLE after this time without progress; 0: no retry.
  int64_t retry_budget_ms = 30000;
  int64_t first_budget_ms = 5000;  // The same limit before the first event of an answer.
  int64_t unary_deadline_ms = 30000;
  bool use_proxy = false;  // Use the proxy that http_proxy in the environment names.
  std::string api_key;     // Sent with each call; empty: none.
  bool tls = false;
  TlsFiles tls_files;           // The roots, and the client's own certificate; each may be empty.
  bool tls_unverified = false;  // For a router that the caller started itself on this machine.
};

// Called for each new event, in order. Returning false cancels the call (CANCELLED).
using EventFn = std::function<bool(const Event&)>;

class Client {
 public:
  explicit Client(ClientOptions options);
  ~Client();
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  absl::StatusOr<Answer> Generate(const GenerateRequest& request, const EventFn& on_event = {});
  absl::StatusOr<Answer> Chat(const ChatRequest& request, const EventFn& on_event = {});

  absl::StatusOr<TokenizeResult> Tokenize(const std::string& text, bool add_special_tokens);
  absl::StatusOr<TokenizeResult> Tokenize(const Conversation& conversation);
  absl::StatusOr<std::string> Detokenize(const std::vector<TokenId>& ids, bool skip_special);
  absl::StatusOr<Model> GetModel();
  // Where the time of a request went. Each address is asked until one knows it, because each router
  // keeps its own requests. NOT_FOUND: none knows it.
  absl::StatusOr<Explanation> Explain(const std::string& request_id);
  // One attempt at each address, at most `deadline_ms` each, for polling.
  absl::StatusOr<ClusterStatus> GetStatus(int64_t deadline_ms);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace fathom::client
