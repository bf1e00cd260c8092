// common/cancel.h: how long work learns that nobody wants its result any more.
// Thread: the function is called by the thread that works; what it reads must be safe from there.
#pragma once

#include <cstdint>
#include <functional>

namespace fathom {

// True: the work may stop. An empty function: it may never.
using CancelFn = std::function<bool()>;

// Asks once for each `every` units of work (bytes, steps), so that an answer may cost a lock.
class CancelCheck {
 public:
  // `cancelled` outlives this.
  CancelCheck(const CancelFn& cancelled, int64_t every)
      : cancelled_(cancelled), every_(every), left_(every) {}

  // Whether to stop. `units`: done since the last call.
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
