// client/session.h: what a client holds of one request, and the rule that each token is taken once
// and in order. Pure: no IO, no clock. Not thread-safe: one call owns it.
//
// A stream tells positions from a start it was asked for (0, or the next positions of a resume).
// Text is a pure function of the ids, so a stream that starts at position p says again exactly the
// bytes that follow text(p); what the session already has is dropped byte by byte. Invariant: ids,
// text and reasoning only grow, and Finish is taken at position == ids.size() only.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "client/types.h"
#include "common/status.h"

namespace fathom::client {

class Session {
 public:
  // REQUIRES: sequences >= 1.
  explicit Session(int32_t sequences);

  // A new stream begins: from scratch, or from next_positions() as they are now.
  enum class From { kStart, kNextPositions };
  void BeginStream(From from);

  // Applies one event of the current stream. Returns what was new in it: nullopt when nothing was
  // (it was dropped and counted). DATA_LOSS: a position is missing, or the event contradicts what
  // is known; the stream must be given up and its tokens asked for again.
  absl::StatusOr<std::optional<Event>> Apply(Event event);

  // Per sequence the position of the next token; the end counts as one more.
  std::vector<int32_t> next_positions() const;
  bool started() const { return started_; }
  bool finished() const;  // Every sequence has its Finish.
  // Grows with everything new.
  uint64_t progress() const { return progress_; }

  const Answer& answer() const { return answer_; }
  Answer TakeAnswer() { return std::move(answer_); }
  StreamCounts& counts() { return answer_.counts; }

 private:
  // Where the current stream is, per sequence.
  struct Cursor {
    int32_t position = 0;
    size_t text_bytes = 0;
    size_t reasoning_bytes = 0;
    bool ended = false;
  };
  // Bytes that came with ids, that is text(next position): where a resumed stream's text begins.
  struct Held {
    size_t text_bytes = 0;
    size_t reasoning_bytes = 0;
  };

  std::optional<Event> Take(Started started);
  absl::StatusOr<std::optional<Event>> Take(PromptLogprobs prompt);
  absl::StatusOr<std::optional<Event>> Take(Tokens tokens);
  absl::StatusOr<std::optional<Event>> Take(Finish finish);
  absl::Status Gap(int32_t sequence, int32_t position, int32_t expected);

  Answer answer_;
  std::vector<Cursor> cursors_;
  std::vector<Held> held_;
  bool started_ = false;
  uint64_t progress_ = 0;
};

}  // namespace fathom::client
