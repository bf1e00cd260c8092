// cli/request_flags.h: the common parts of `chat` and `complete`: the flags of a request, and the
// output of an answer.
#pragma once

#include <cstdint>
#include <string>

#include "client/client.h"
#include "common/flags.h"

namespace fathom::client {

struct RequestFlags {
  int32_t max_tokens = 0;   // 0: the rest of the context.
  double temperature = -1;  // Negative: the model's default.
  std::string seed;         // Empty: the router draws one.
  int32_t priority = 0;
  std::string idempotency_key;
  bool json = false;

  void Add(Flags& flags);
  // INVALID_ARGUMENT for a seed that is not a number.
  absl::Status Apply(RequestOptions* request) const;
  // Gives the request an id of its own, so that it is known also if no answer comes. With an
  // idempotency key the router makes the id.
  void DrawId(RequestOptions* request) const;
};

// Streams an answer to stdout, and before it the request's id to stderr, for `fathom explain`. On a
// terminal, reasoning is printed dimmed; otherwise it is left
// out.
class AnswerPrinter {
 public:
  explicit AnswerPrinter(bool quiet);
  // The callback for Client::Generate and Chat. Always returns true while the answer can be
  // written.
  bool OnEvent(const Event& event);
  void Finish();
  // Prints the id on stderr, unless it was printed.
  void ShowId(const std::string& request_id);

 private:
  void Style(bool dimmed);

  const bool quiet_;
  const bool terminal_;
  bool dimmed_ = false;
  bool line_open_ = false;
  bool id_shown_ = false;
};

// Prints a warning on stderr if the tokens of an answer come from more than one kind of group.
void WarnOfKinds(const Answer& answer);

// One line of JSON: text, ids, finish, usage, timings, seed, fingerprint.
std::string AnswerJson(const Answer& answer);

}  // namespace fathom::client
