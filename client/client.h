// client/client.h: the C++ client of a Fathom router (target fathom::client; no Protobuf or gRPC in
// its headers).
//
// An answer survives the death of any one process: when a stream breaks, says nothing for
// `silence_ms` or skips a position, the client goes on at the next address with Resume, or, where
// nobody knows the request any more, asks again from request and seed; tokens it has are dropped.
// It is a success only when every sequence has its Finish. Errors are absl::Status with the
// router's message; DetailOf(status) gives reason, field and retry delay.
//
// Thread: any number of threads may share a Client; each call blocks its own thread, and calls its
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

namespace fathom::client {

struct ClientOptions {
  std::vector<std::string> servers;  // host:port of routers, tried in turn; at least one.
  int64_t silence_ms =
      3000;  // A stream is given up after so long without a frame (routers send one a second).
  int64_t first_frame_ms = 10000;  // The same before a stream's first frame.
  int64_t retry_budget_ms =
      30000;  // A call ends UNAVAILABLE after so long without any progress; 0: no retry.
  int64_t first_budget_ms = 5000;  // The same before anything of an answer came.
  int64_t unary_deadline_ms = 30000;
  bool use_proxy = false;  // The one that http_proxy names in the environment.
};

// Called for each new event, in order. False: the caller has enough; the call is cancelled
// (CANCELLED).
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
  // One attempt at each address, at most `deadline_ms` each: for polling.
  absl::StatusOr<ClusterStatus> GetStatus(int64_t deadline_ms);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace fathom::client
