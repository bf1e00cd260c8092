// cli/request_flags.h: what `chat` and `complete` share: the flags of a request, and how an
// answer is shown.
#pragma once

#include <cstdint>
#include <string>

#include "client/client.h"
#include "common/flags.h"

namespace fathom::client {

struct RequestFlags {
  int32_t max_tokens = 0;   // 0: the rest of the context.
  double temperature = -1;  // Negative: the model's default.
  std::string seed;         // Empty: drawn.
  std::string idempotency_key;
  bool json = false;

  void Add(Flags& flags);
  // INVALID_ARGUMENT for a seed that is not a number.
  absl::Status Apply(RequestOptions* request) const;
};

// Streams an answer to stdout as it comes; reasoning dimmed on a terminal, else left out.
class AnswerPrinter {
 public:
  explicit AnswerPrinter(bool quiet);
  // For Client::Generate and Chat. Always true.
  bool OnEvent(const Event& event);
  void Finish();

 private:
  void Style(bool dimmed);

  const bool quiet_;
  const bool terminal_;
  bool dimmed_ = false;
  bool line_open_ = false;
};

// Says on stderr when an answer's tokens are of more than one kind of group.
void WarnOfKinds(const Answer& answer);

// One line of JSON: text, ids, finish, usage, timings, seed, fingerprint.
std::string AnswerJson(const Answer& answer);

}  // namespace fathom::client
