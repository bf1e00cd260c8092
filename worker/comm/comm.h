// worker/comm/comm.h: how the ranks of a tensor-parallel group add and gather. Every rank makes the
// same calls in the same order with the same sizes. Thread: the engine thread. Errors: ABORTED when
// the epoch ended while a call waited; the output is then partial, the step is void and so is every
// later call.
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

  // values[i] = the sum over ranks of values[i], in fp32 and in rank order: ((r0 + r1) + r2) + ...
  // Equal bits on every rank.
  virtual absl::Status AllReduceSum(std::span<float> values) = 0;

  // all = rank 0's `mine`, rank 1's, ... REQUIRES: all.size() == size() * mine.size(), no overlap.
  virtual absl::Status AllGather(std::span<const float> mine, std::span<float> all) = 0;
};

// A group of one.
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
