// worker/comm/comm.h: the collectives of a tensor-parallel group. Every rank makes the same calls
// in the same order with the same sizes. Thread: the engine thread. Errors: ABORTED if the epoch
// ended while a call waited. The output is then partial, and the step and every later call are
// void.
#pragma once

#include <algorithm>
#include <span>

#include "common/check.h"
#include "common/status.h"

namespace fathom::worker {

class Comm {
 public:
  virtual ~Comm() = default;

  virtual int rank() const = 0;
  virtual int size() const = 0;

  // Replaces values[i] by the sum over the ranks of values[i], in fp32 and in rank order: ((r0 +
  // r1) + r2) + ... Every rank gets the same bits.
  virtual absl::Status AllReduceSum(std::span<float> values) = 0;

  // Writes the `mine` of rank 0, of rank 1, ... to `all`. REQUIRES: all.size() == size() *
  // mine.size(); `mine` and `all` do not overlap.
  virtual absl::Status AllGather(std::span<const float> mine, std::span<float> all) = 0;
};

// A group of one rank.
class SingleRankComm final : public Comm {
 public:
  int rank() const override { return 0; }
  int size() const override { return 1; }
  absl::Status AllReduceSum(std::span<float>) override { return absl::OkStatus(); }
  absl::Status AllGather(std::span<const float> mine, std::span<float> all) override {
    FATHOM_CHECK(mine.size() == all.size());
    std::copy(mine.begin(), mine.end(), all.begin());
    return absl::OkStatus();
  }
};

}  // namespace fathom::worker
