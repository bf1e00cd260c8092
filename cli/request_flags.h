// cli/request_flags.h: the common parts of `chat` and `complete`: the flags of a request, and the
// output of an answer.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "client/client.h"
#include "common/flags.h"

namespace fathom::client {

struct RequestFlags {
  int32_t max_tokens = 0;   // 0: the rest of the context.
  int32_t n = 1;            // Sequences.
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
// out. Of several sequences each one is printed whole, in their order, under a line with its
// number: one is streamed, and those after it are kept until it has ended.
class AnswerPrinter {
 public:
  AnswerPrinter(bool quiet, int32_t sequences);
  // The callback for Client::Generate and Chat. Always returns true while the answer can be
  // written.
  bool OnEvent(const Event& event);
  void Finish();
  // Prints the id on stderr, unless it was printed.
  void ShowId(const std::string& request_id);

 private:
  // What came of a sequence whose turn has not come.
  struct Kept {
    std::string reasoning, text;
    bool ended = false;
  };

  void Print(const std::string& reasoning, const std::string& text);
  // The streamed sequence has ended: prints what was kept of those after it, up to the first one
  // that has not ended.
  void NextSequence();
  void Style(bool dimmed);
  void EndLine();

  const bool quiet_;
  const bool terminal_;
  std::vector<Kept> kept_;
  size_t streamed_ = 0;  // The sequence that is streamed.
  bool dimmed_ = false;
  bool line_open_ = false;
  bool headed_ = false;  // The line of the streamed sequence was printed.
  bool id_shown_ = false;
};

// Prints a warning on stderr if the tokens of an answer come from more than one kind of group.
void WarnOfKinds(const Answer& answer);

// One line of JSON: text, ids, finish, usage, timings, seed, fingerprint.
std::string AnswerJson(const Answer& answer);

}  // namespace fathom::client
