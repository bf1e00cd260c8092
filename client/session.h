// client/session.h: the client's state of one request, and the rule that each token is taken once
// and in order. Pure: no IO, no clock. Not thread-safe: one call owns it.
//
// A stream counts positions from the start that it was asked for (0, or the next positions of a
// resume). Text is a pure function of the ids, so a stream that starts at position p sends exactly
// the bytes that follow text(p). Bytes that the session already has are dropped. Invariant: ids,
// text and reasoning only grow, and Finish is taken only at position == ids.size().
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

  // A new stream starts: from position 0, or from the present next_positions().
  enum class From { kStart, kNextPositions };
  void BeginStream(From from);

  // Applies one event of the current stream. Returns the new part of it; nullopt if nothing was new
  // (the event was dropped and counted). DATA_LOSS: a position is missing, or the event contradicts
  // the session's state. Then the caller must give up the stream and ask for its tokens again.
  absl::StatusOr<std::optional<Event>> Apply(Event event);

  // The position of the next token of each sequence; the end counts as one more.
  std::vector<int32_t> next_positions() const;
  bool started() const { return started_; }
  bool finished() const;  // Every sequence has its Finish.
  // Increases with everything new.
  uint64_t progress() const { return progress_; }

  const Answer& answer() const { return answer_; }
  Answer TakeAnswer() { return std::move(answer_); }
  StreamCounts& counts() { return answer_.counts; }

 private:
  // The position of the current stream in each sequence.
  struct Cursor {
    int32_t position = 0;
    size_t text_bytes = 0;
    size_t reasoning_bytes = 0;
    bool ended = false;
  };
  // The bytes that came with ids, that is text(next position): a resumed stream's text starts here.
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
