// common/cancel.h: the function by which long work checks whether its result is still wanted.
// Thread: the thread that works calls the function, so what the function reads must be thread-safe.
#pragma once

#include <cstdint>
#include <functional>

namespace fathom {

// Returns true if the work may stop. An empty function never cancels.
using CancelFn = std::function<bool()>;

// Calls the function once for each `every` units of work (bytes, steps), so the function may take a
// lock.
class CancelCheck {
 public:
  // `cancelled` must outlive this object.
  CancelCheck(const CancelFn& cancelled, int64_t every)
      : cancelled_(cancelled), every_(every), left_(every) {}

  // Whether to stop. `units` is the work done since the last call.
  bool After(int64_t units) {
    left_ -= units;
    if (left_ > 0) return false;
    left_ = every_;
    return cancelled_ && cancelled_();
  }

 private:
  const CancelFn& cancelled_;
  const int64_t every_;
  int64_t left_;
};

}  // namespace fathom
