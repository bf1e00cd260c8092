// scheduler/core/speculation.h: decides for each step of a group whether its decode rows get drafts
// (speculative decoding). The decision follows what was measured at this number of decode rows: the
// gain of drafts is (tokens of a row) / (time of a step with drafts / time of a plain step). A mode
// that is not in use is tried again for a few steps, the more rarely the longer the other one was
// better. The decision changes the speed and no token. Pure: time is an argument, so a replay of
// the same events decides alike. Thread: not thread-safe; owned by the driver thread.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace fathom::scheduler {

// What a step of decode rows only has shown.
struct DecodeStep {
  int32_t rows = 0;     // Sequences.
  bool drafts = false;  // A row was granted drafts.
  int64_t us = 0;       // From its plan, or from the result before it if that came later.
  int32_t tokens = 0;   // That its result has.
};

class Speculation {
 public:
  // `draft_max`: the drafts of a row; 0: never any.
  explicit Speculation(int32_t draft_max) : draft_max_(draft_max) {}

  // The drafts that each of so many decode rows of the next plan may have; 0: a plain step.
  int32_t Grant(int32_t rows) const;

  void Learn(const DecodeStep& step);

  // The measured gain of drafts at so many decode rows; 0: not measured yet.
  double Gain(int32_t rows) const;

 private:
  static constexpr int32_t kProbeSteps = 8;      // Of the mode that is not in use.
  static constexpr int32_t kSkippedSteps = 1;    // At the begin of a mode: the other one ends then.
  static constexpr int32_t kIntervalMin = 64;    // Steps between two probes.
  static constexpr int32_t kIntervalMax = 1024;  // After doubling.
  static constexpr size_t kWindow = 16;

  // The last steps of one mode.
  struct Window {
    std::array<int64_t, kWindow> us = {};
    std::array<double, kWindow> tokens = {};  // For each row.
    int32_t steps = 0;                        // Of all time, until Clear.
    void Add(const DecodeStep& step);
    void Clear() { steps = 0; }
    double UsOfToken() const;  // The median time of a step by the mean tokens of a row.
  };
  // Steps of a similar number of rows.
  struct Batch {
    Window plain, drafts;
    bool uses_drafts = true;  // The better mode as far as is known.
    bool probes = false;      // The other mode runs now.
    int32_t steps_left = kProbeSteps;
    int32_t steps_skipped = 0;  // Of the present mode.
    int32_t interval = kIntervalMin;

    bool drafts_now() const { return uses_drafts != probes; }
    double Gain() const;
    void Begin(bool probe, int32_t steps);
    void Decide();
  };
  static constexpr size_t kBatches = 16;  // 1, 2, 3 to 4, 5 to 8, ... rows.
  static size_t BatchOf(int32_t rows);

  const int32_t draft_max_;
  std::array<Batch, kBatches> batches_;
};

}  // namespace fathom::scheduler
